// Print an application's events: go run . APPLICATION GROUP
//
//	NATS_URL                  default nats://127.0.0.1:4222; with tls:// the connection has TLS
//	NATS_USER, NATS_PASSWORD  the application's user; or NATS_CREDS, a credentials file
//	NATS_DOMAIN               "sandwich" in an application's account
//	NATS_CA                   the file of a CA that the system does not know
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

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

func connect() (*nats.Conn, error) {
	server := os.Getenv("NATS_URL")
	if server == "" {
		server = nats.DefaultURL
	}
	options := []nats.Option{nats.MaxReconnects(-1), nats.UserInfo(os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD"))}
	if file := os.Getenv("NATS_CREDS"); file != "" {
		options = append(options, nats.UserCredentials(file))
	}
	if file := os.Getenv("NATS_CA"); file != "" {
		options = append(options, nats.RootCAs(file))
	}
	return nats.Connect(server, options...)
}

// openGroup returns the group's durable. One that is missing is created, where NATS has no accounts.
func openGroup(ctx context.Context, client *nats.Conn, app, group string) (jetstream.Consumer, error) {
	prefix := "$JS.API"
	if domain := os.Getenv("NATS_DOMAIN"); domain != "" {
		prefix = "$JS." + domain + ".API"
	}
	stream, err := jetstream.NewWithAPIPrefix(client, prefix)
	if err != nil {
		return nil, err
	}
	durable, err := stream.Consumer(ctx, "SANDWICH_"+app, group)
	if !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return durable, err
	}
	return stream.CreateConsumer(ctx, "SANDWICH_"+app, jetstream.ConsumerConfig{
		Durable:       group,
		FilterSubject: "sandwich." + app + ".events.all.>",
		AckPolicy:     jetstream.AckExplicitPolicy,
		MaxAckPending: 10000,
	})
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("go run . APPLICATION GROUP")
	}
	app, group := os.Args[1], os.Args[2]
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	client, err := connect()
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	durable, err := openGroup(ctx, client, app, group)
	if err != nil {
		log.Fatalf("The group %s cannot be opened or created (%v).\n"+
			"The operator creates it: sandwich group create %s %s\n"+
			"In an application's account, and only there, NATS_DOMAIN is sandwich.", group, err, app, group)
	}
	inflater, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(512<<20))
	if err != nil {
		log.Fatal(err)
	}
	messages, err := durable.Consume(func(message jetstream.Msg) {
		show(message, inflater)
		if err := message.Ack(); err != nil {
			log.Println(err)
		}
	})
	if err != nil {
		log.Fatal(err)
	}
	<-ctx.Done()
	messages.Drain()
	<-messages.Closed()
}
