package headstart

import (
	"context"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/runtime/protoimpl"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "headstart.example/client/headstartv1"
)

// tried calls a method that fails so many times; it returns when each attempt was made.
func tried(t *testing.T, code codes.Code, times int, after, timeout time.Duration) ([]time.Time, error) {
	t.Helper()
	message := &rpcstatus.Status{Code: int32(code), Message: "no"}
	if after > 0 {
		info := must[[]byte](t)(proto.Marshal(protoimpl.X.ProtoMessageV2Of(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)})))
		message.Details = append(message.Details, &anypb.Any{TypeUrl: "type.googleapis.com/google.rpc.RetryInfo", Value: info})
	}
	var at []time.Time
	invoke := func(ctx context.Context, _ string, _, _ interface{}, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
		if _, ok := ctx.Deadline(); !ok {
			t.Fatal("the call has no deadline")
		}
		if at = append(at, time.Now()); len(at) > times {
			return nil
		}
		return status.FromProto(message).Err()
	}
	call := retrying(Options{Timeout: timeout})
	err := call(context.Background(), "/x", &pb.GetStatusRequest{}, nil, nil, invoke)
	return at, err
}

func TestUnavailableAndCancelledAreRetried(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.Canceled} {
		at, err := tried(t, code, 3, 0, 0)
		same(t, err, nil)
		same(t, len(at), 4)
	}
	at, err := tried(t, codes.Unavailable, 9, 0, 0)
	refused(t, err, codes.Unavailable)
	same(t, len(at), 4)
}

func TestRetryInfoIsTheLeastPause(t *testing.T) {
	const pause = 300 * time.Millisecond
	at, err := tried(t, codes.Unavailable, 1, pause, 0)
	same(t, err, nil)
	if at[1].Sub(at[0]) < pause {
		t.Fatal(at)
	}
	at, err = tried(t, codes.Unavailable, 1, pause, 200*time.Millisecond)
	same(t, refused(t, err, codes.Unavailable).RetryAfter, pause)
	same(t, len(at), 1)
}

func TestOtherErrorsAreNotRetried(t *testing.T) {
	at, err := tried(t, codes.ResourceExhausted, 1, 300*time.Millisecond, 0)
	same(t, refused(t, err, codes.ResourceExhausted).RetryAfter, 300*time.Millisecond)
	same(t, len(at), 1)
}
