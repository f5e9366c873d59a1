// Starts a run, reads it, watches it and sends wrong input, as a Go backend would.
//
//	main ADDRESS SERVICE_CONFIG_FILE
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/ioutil"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	headstartv1 "headstart/v1"
)

// Debian's grpc brings a codec for messages of the older API; projects with modules need none.
type codec struct{}

func (codec) Name() string { return "proto" }
func (codec) Marshal(message interface{}) ([]byte, error) {
	return proto.Marshal(message.(proto.Message))
}
func (codec) Unmarshal(data []byte, message interface{}) error {
	return proto.Unmarshal(data, message.(proto.Message))
}

// The artifacts' JSON as it came: decoding it to interface{} would make every number a double.
func texts(got *headstartv1.GetResultsResponse) map[string]json.RawMessage {
	values := map[string]json.RawMessage{}
	for step, artifact := range got.GetCustom().GetArtifacts() {
		values[step] = json.RawMessage(artifact.GetJson())
	}
	return values
}

func start(ctx context.Context, client headstartv1.PrecomputeServiceClient, key string, value interface{}) (*headstartv1.StartPrecomputeResponse, error) {
	// Not structpb, whose numbers are doubles.
	inputs, err := json.Marshal(map[string]interface{}{"value": value})
	if err != nil {
		log.Fatal(err)
	}
	return client.StartPrecompute(ctx, &headstartv1.StartPrecomputeRequest{
		Key:  key,
		Spec: &headstartv1.StartPrecomputeRequest_Custom{Custom: &headstartv1.CustomSpec{Pipeline: "chain", InputsJson: string(inputs)}},
	})
}

func main() {
	encoding.RegisterCodec(codec{})
	config, err := ioutil.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	conn, err := grpc.Dial(os.Args[1], grpc.WithInsecure(), grpc.WithDefaultServiceConfig(string(config)))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	client := headstartv1.NewPrecomputeServiceClient(conn)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	started, err := start(ctx, client, "go", 1)
	if err != nil {
		log.Fatal(err)
	}
	stream, err := client.WatchResults(ctx, &headstartv1.WatchResultsRequest{Key: "go"})
	if err != nil {
		log.Fatal(err)
	}
	watched := 0
	for {
		if _, err := stream.Recv(); err != nil {
			break
		}
		watched++
	}
	got, err := client.GetResults(ctx, &headstartv1.GetResultsRequest{Key: "go", Wait: durationpb.New(20 * time.Second)})
	if err != nil {
		log.Fatal(err)
	}
	values := texts(got)
	// Two whole numbers that are one double.
	var large []string
	for _, id := range []int64{1 << 53, 1<<53 + 1} {
		again, err := start(ctx, client, "large", id)
		if err != nil {
			log.Fatal(err)
		}
		large = append(large, again.Outcome.String())
	}
	got, err = client.GetResults(ctx, &headstartv1.GetResultsRequest{Key: "large", Wait: durationpb.New(20 * time.Second)})
	if err != nil {
		log.Fatal(err)
	}
	exact := texts(got)
	var fields []string
	_, err = start(ctx, client, "go", "x")
	for _, detail := range status.Convert(err).Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			for _, violation := range bad.FieldViolations {
				fields = append(fields, violation.Field)
			}
		}
	}
	said, _ := json.Marshal(map[string]interface{}{
		"outcome": started.Outcome.String(),
		"status":  got.Status.String(),
		"watched": watched,
		"values":  values,
		"large":   large,
		"exact":   exact,
		"code":    status.Code(err).String(),
		"fields":  fields,
	})
	fmt.Println(string(said))
}
