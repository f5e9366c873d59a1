//go:build debian

package headstart

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/protobuf/proto"
)

// Debian's gRPC is of 2020: it has no package insecure, and a codec for messages of the older API.

func init() { encoding.RegisterCodec(codec{}) }

type codec struct{}

func (codec) Name() string { return "proto" }
func (codec) Marshal(message interface{}) ([]byte, error) {
	return proto.Marshal(message.(proto.Message))
}
func (codec) Unmarshal(data []byte, message interface{}) error {
	return proto.Unmarshal(data, message.(proto.Message))
}

func plaintext() grpc.DialOption { return grpc.WithInsecure() }
