// go run . nats://127.0.0.1:4222 mybot
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

type event struct {
	Type string          `json:"t"`
	Data json.RawMessage `json:"d"`
	Meta struct {
		ID string `json:"id"`
	} `json:"__sandwich"`
}

var parts = map[string][][]byte{}

// whole returns a frame's payload; nil for a part that is not the last, and for fence, marker and gap frames.
func whole(message jetstream.Msg) []byte {
	headers := message.Headers()
	if headers.Get("Sandwich-Count") == "0" {
		return nil
	}
	part := headers.Get("Sandwich-Part")
	if part == "" {
		return message.Data()
	}
	var index, total int
	if _, err := fmt.Sscanf(part, "%d/%d", &index, &total); err != nil {
		log.Fatal(err)
	}
	if index == 1 {
		parts[message.Subject()] = nil
	}
	held := append(parts[message.Subject()], message.Data())
	parts[message.Subject()] = held
	if index < total || len(held) < total {
		return nil
	}
	delete(parts, message.Subject())
	return bytes.Join(held, nil)
}

func main() {
	server, app := os.Args[1], os.Args[2]
	client, err := nats.Connect(server, nats.MaxReconnects(-1))
	if err != nil {
		log.Fatal(err)
	}
	stream, err := jetstream.New(client)
	if err != nil {
		log.Fatal(err)
	}
	consumer, err := stream.CreateOrUpdateConsumer(context.Background(), "SANDWICH_"+app, jetstream.ConsumerConfig{
		Durable:       "example-go",
		FilterSubject: "sandwich." + app + ".events.all.>",
		AckPolicy:     jetstream.AckExplicitPolicy,
		MaxAckPending: 10000,
	})
	if err != nil {
		log.Fatal(err)
	}
	inflater, err := zstd.NewReader(nil)
	if err != nil {
		log.Fatal(err)
	}
	_, err = consumer.Consume(func(message jetstream.Msg) {
		if payload := whole(message); payload != nil {
			lines, err := inflater.DecodeAll(payload, nil)
			if err != nil {
				log.Fatal(err)
			}
			for _, line := range strings.Split(strings.TrimSuffix(string(lines), "\n"), "\n") {
				var e event
				if err := json.Unmarshal([]byte(line), &e); err != nil {
					log.Fatal(err)
				}
				fmt.Println(e.Type, e.Meta.ID)
			}
		}
		if err := message.Ack(); err != nil {
			log.Println(err)
		}
	})
	if err != nil {
		log.Fatal(err)
	}
	select {}
}
