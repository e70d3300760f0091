// go run . nats://127.0.0.1:4222 mybot
// In an application's account: NATS_USER, NATS_PASSWORD and NATS_DOMAIN=sandwich in the environment.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"

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

// whole returns a frame's payload; nil for a part that is not the last, and for frames without events.
func whole(message jetstream.Msg) ([]byte, error) {
	headers := message.Headers()
	if headers.Get("Sandwich-Count") == "0" {
		return nil, nil
	}
	part := headers.Get("Sandwich-Part")
	if part == "" {
		return message.Data(), nil
	}
	var index, total int
	if _, err := fmt.Sscanf(part, "%d/%d", &index, &total); err != nil {
		return nil, err
	}
	if index == 1 {
		parts[message.Subject()] = nil
	}
	held := append(parts[message.Subject()], message.Data())
	parts[message.Subject()] = held
	if index < total || len(held) < total {
		return nil, nil
	}
	delete(parts, message.Subject())
	return bytes.Join(held, nil), nil
}

// show prints a frame's events. One that cannot be read is passed over: it would come again for ever.
func show(message jetstream.Msg, inflater *zstd.Decoder) {
	payload, err := whole(message)
	if err != nil || payload == nil {
		if err != nil {
			log.Println("a frame cannot be read:", err)
		}
		return
	}
	lines, err := inflater.DecodeAll(payload, nil)
	if err != nil {
		log.Println("a frame cannot be read:", err)
		return
	}
	for _, line := range bytes.Split(bytes.TrimSuffix(lines, []byte("\n")), []byte("\n")) {
		var e event
		if err := json.Unmarshal(line, &e); err != nil || e.Meta.ID == "" {
			log.Println("an event cannot be read:", err)
			continue
		}
		fmt.Println(e.Type, e.Meta.ID)
	}
}

const group = "example-go"

// open returns the group, and makes it when it is missing; in an application's account only the operator may make it.
func open(client *nats.Conn, app string) (jetstream.Consumer, error) {
	api, err := jetstream.New(client)
	if domain := os.Getenv("NATS_DOMAIN"); domain != "" {
		api, err = jetstream.NewWithDomain(client, domain)
	}
	if err != nil {
		return nil, err
	}
	consumer, err := api.Consumer(context.Background(), "SANDWICH_"+app, group)
	if !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return consumer, err
	}
	return api.CreateConsumer(context.Background(), "SANDWICH_"+app, jetstream.ConsumerConfig{
		Durable:       group,
		FilterSubject: "sandwich." + app + ".events.all.>",
		AckPolicy:     jetstream.AckExplicitPolicy,
		MaxAckPending: 10000,
	})
}

func main() {
	server, app := os.Args[1], os.Args[2]
	login := nats.UserInfo(os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD"))
	client, err := nats.Connect(server, nats.MaxReconnects(-1), login)
	if err != nil {
		log.Fatal(err)
	}
	consumer, err := open(client, app)
	if err != nil {
		log.Fatalf("group %s cannot be opened (%v); the operator makes it: sandwich group create %s %s", group, err, app, group)
	}
	inflater, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(512<<20))
	if err != nil {
		log.Fatal(err)
	}
	_, err = consumer.Consume(func(message jetstream.Msg) {
		show(message, inflater)
		if err := message.Ack(); err != nil {
			log.Println(err)
		}
	})
	if err != nil {
		log.Fatal(err)
	}
	select {}
}
