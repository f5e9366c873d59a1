package headstart

// Needs a server at HEADSTART_ADDRESS, with the pipelines of tests/support/pipelines.py.
// `make test-languages` starts it.

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "headstart.example/client/headstartv1"
)

type inputs map[string]interface{}

func address(t *testing.T) string {
	t.Helper()
	found := os.Getenv("HEADSTART_ADDRESS")
	if found == "" {
		t.Skip("HEADSTART_ADDRESS names no server")
	}
	return found
}

func dial(t *testing.T, target string, options Options) *Client {
	t.Helper()
	client, err := Dial(target, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func must[T any](t *testing.T) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func same(t *testing.T, got, want interface{}) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func refused(t *testing.T, err error, code codes.Code) *Error {
	t.Helper()
	var found *Error
	if !errors.As(err, &found) || found.Code != code || status.Code(err) != code {
		t.Fatalf("got %v, want %v", err, code)
	}
	return found
}

func TestARunIsStartedWatchedAndRead(t *testing.T) {
	client, ctx := dial(t, address(t), Options{}), context.Background()
	started := must[*pb.StartPrecomputeResponse](t)(client.Start(ctx, Start{Key: "go-run", Pipeline: "chain", Inputs: inputs{"value": 1}}))
	same(t, started.Outcome, pb.StartOutcome_START_OUTCOME_STARTED)
	watch := client.Watch(ctx, "", "go-run")
	defer watch.Close()
	states := 0
	for watch.Next() {
		states++
	}
	if watch.Err() != nil || states < 2 || !watch.Results().Ended() {
		t.Fatal(watch.Err(), states, watch.Results())
	}
	got := must[*Results](t)(client.GetResults(ctx, "go-run", Read{Wait: 1500 * time.Millisecond, ResultSteps: []string{"three"}}))
	var three int
	same(t, must[bool](t)(got.Decode("three", &three)), true)
	same(t, three, 7)
	same(t, must[bool](t)(got.Decode("two", &three)), false)
}

func TestWholeNumbersAreExact(t *testing.T) {
	client, ctx := dial(t, address(t), Options{}), context.Background()
	const large = 1<<53 + 1
	must[*pb.StartPrecomputeResponse](t)(client.Start(ctx, Start{Key: "go-large", Pipeline: "noop", Inputs: inputs{"value": int64(large)}}))
	got := must[*Results](t)(client.GetResults(ctx, "go-large", Read{Wait: 20 * time.Second}))
	var value int64
	must[bool](t)(got.Decode("nothing", &value))
	same(t, value, int64(large))
}

func TestManyKeysGoInOneCall(t *testing.T) {
	client, ctx := dial(t, address(t), Options{}), context.Background()
	starts := []Start{
		{Key: "go-a", Pipeline: "noop", Inputs: inputs{"value": 1}},
		{Key: "go-b", Pipeline: "noop", Inputs: inputs{"value": "x"}},
	}
	started := must[[]Started](t)(client.StartMany(ctx, starts))
	same(t, started[0].Response.Outcome, pb.StartOutcome_START_OUTCOME_STARTED)
	wrong := started[1].Err.Violations[0]
	same(t, wrong.Field, "custom.inputs.value")
	same(t, started[1].Err.Error(), "InvalidArgument: custom.inputs.value: "+wrong.Description)
	found := must[[]Found](t)(client.GetMany(ctx, []string{"go-a", "go-none"}, Read{Wait: 20 * time.Second}))
	same(t, found[0].Results.Ended(), true)
	same(t, found[1].Err.Code, codes.NotFound)
	same(t, len(must[[]Found](t)(client.GetMany(ctx, nil, Read{}))), 0)
}

func TestARunIsTouchedListedCancelledAndDeleted(t *testing.T) {
	client, ctx := dial(t, address(t), Options{}), context.Background()
	must[*pb.StartPrecomputeResponse](t)(client.Start(ctx, Start{Key: "go-held", Pipeline: "probe", Inputs: inputs{"directory": t.TempDir()}}))
	if expires := must[time.Time](t)(client.Touch(ctx, "", "go-held", 2*time.Hour)); time.Until(expires) < time.Hour {
		t.Fatal(expires)
	}
	listed := map[string]bool{}
	err := client.List(ctx, "", func(run *pb.PrecomputeSummary) error { listed[run.Key] = true; return nil })
	same(t, err, nil)
	same(t, listed["go-held"], true)
	same(t, must[*pb.CancelPrecomputeResponse](t)(client.Cancel(ctx, "", "go-held", 7)).Cancelled, false)
	same(t, must[*pb.CancelPrecomputeResponse](t)(client.Cancel(ctx, "", "go-held", 0)).Cancelled, true)
	same(t, must[bool](t)(client.Delete(ctx, "", "go-held", 0)), true)
	same(t, must[bool](t)(client.Delete(ctx, "", "go-held", 0)), false)
	_, err = client.GetStatus(ctx, "", "go-held")
	refused(t, err, codes.NotFound)
}

func TestARestartHasARequestID(t *testing.T) {
	client, ctx := dial(t, address(t), Options{}), context.Background()
	start := Start{Key: "go-restart", Pipeline: "noop"}
	must[*pb.StartPrecomputeResponse](t)(client.Start(ctx, start))
	start.Restart = true
	first, err := client.startRequest(start)
	same(t, err, nil)
	for i := 0; i < 2; i++ {
		same(t, must[*pb.StartPrecomputeResponse](t)(client.Stub.StartPrecompute(ctx, first)).Revision, int64(2))
	}
	same(t, must[*pb.StartPrecomputeResponse](t)(client.Start(ctx, start)).Revision, int64(3))
}

func TestWrongInputsNameTheirField(t *testing.T) {
	client, ctx := dial(t, address(t), Options{}), context.Background()
	_, err := client.Start(ctx, Start{Key: "go-wrong", Pipeline: "chain", Inputs: inputs{"value": "x"}})
	same(t, refused(t, err, codes.InvalidArgument).Violations[0].Field, "custom.inputs.value")
	_, err = client.Start(ctx, Start{Key: "go-wrong", Pipeline: "chain", Inputs: inputs{"value": func() {}}})
	same(t, refused(t, err, codes.InvalidArgument).Violations[0].Field, "custom.inputs")
}

func TestACallWithoutADeadlineGetsOne(t *testing.T) {
	silent := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer silent.Close()
	client := dial(t, silent.Addr().String(), Options{Timeout: 100 * time.Millisecond})
	_, err := client.GetStatus(context.Background(), "", "k")
	refused(t, err, codes.DeadlineExceeded)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = client.GetStatus(ctx, "", "k")
	refused(t, err, codes.Canceled)
}

func TestAServerThatIsAwayIsUnavailable(t *testing.T) {
	client := dial(t, "127.0.0.1:1", Options{})
	began := time.Now()
	_, err := client.GetStatus(context.Background(), "", "k")
	refused(t, err, codes.Unavailable)
	if time.Since(began) < 100*time.Millisecond {
		t.Fatal("it was not tried again")
	}
}

func TestCallsAndWatchesOutliveCutConnections(t *testing.T) {
	between := newProxy(t, address(t))
	client, ctx, directory := dial(t, between.address, Options{}), context.Background(), t.TempDir()
	must[*pb.StartPrecomputeResponse](t)(client.Start(ctx, Start{Key: "go-cut", Pipeline: "probe", Inputs: inputs{"directory": directory}}))
	watch := client.Watch(ctx, "", "go-cut")
	defer watch.Close()
	cuts := 0
	for watch.Next() {
		if cuts == 0 && watch.Results().Artifact("first") != nil {
			cuts++
			between.cut()
			same(t, os.WriteFile(filepath.Join(directory, "go"), nil, 0o600), nil)
		}
	}
	same(t, watch.Err(), nil)
	same(t, cuts, 1)
	same(t, watch.Results().Ended(), true)
	between.cut()
	must[*pb.GetStatusResponse](t)(client.GetStatus(ctx, "", "go-cut"))
}

func TestAWatchOfAMissingKeyFailsAndOneThatIsClosedEnds(t *testing.T) {
	client, ctx := dial(t, address(t), Options{}), context.Background()
	missing := client.Watch(ctx, "", "go-missing")
	same(t, missing.Next(), false)
	refused(t, missing.Err(), codes.NotFound)
	must[*pb.StartPrecomputeResponse](t)(client.Start(ctx, Start{Key: "go-left", Pipeline: "probe", Inputs: inputs{"directory": t.TempDir()}}))
	watch := client.Watch(ctx, "", "go-left")
	same(t, watch.Next(), true)
	watch.Close()
	for watch.Next() {
	}
	refused(t, watch.Err(), codes.Canceled)
	must[*pb.CancelPrecomputeResponse](t)(client.Cancel(ctx, "", "go-left", 0))
}

func TestTLSAndAToken(t *testing.T) {
	target := os.Getenv("SECURED_ADDRESS")
	if target == "" {
		t.Skip("SECURED_ADDRESS names no server")
	}
	trusted := x509.NewCertPool()
	same(t, trusted.AppendCertsFromPEM(must[[]byte](t)(os.ReadFile(os.Getenv("SECURED_CA")))), true)
	own := must[tls.Certificate](t)(tls.LoadX509KeyPair(os.Getenv("SECURED_CERT"), os.Getenv("SECURED_KEY")))
	options := Options{Namespace: "shop", TLS: &tls.Config{RootCAs: trusted, Certificates: []tls.Certificate{own}}}
	ctx, start := context.Background(), Start{Key: "go-secured", Pipeline: "noop"}

	_, err := dial(t, target, options).Start(ctx, start)
	refused(t, err, codes.Unauthenticated)
	options.Token = StaticToken(os.Getenv("SECURED_READER"))
	_, err = dial(t, target, options).Start(ctx, start)
	same(t, refused(t, err, codes.PermissionDenied).Metadata["missing"], "write")
	options.Token = StaticToken(os.Getenv("SECURED_TOKEN"))
	client := dial(t, target, options)
	must[*pb.StartPrecomputeResponse](t)(client.Start(ctx, start))
	watch := client.Watch(ctx, "", "go-secured")
	for watch.Next() {
	}
	same(t, watch.Err(), nil)
}

func TestATensorHasItsValues(t *testing.T) {
	floats := &pb.Tensor{Dtype: "float32", Shape: []int64{2}, Data: []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0}}
	same(t, must[[]float32](t)(Values[float32](floats)), []float32{1, -2})
	same(t, must[[]bool](t)(Values[bool](&pb.Tensor{Dtype: "bool", Data: []byte{1, 0}})), []bool{true, false})
	if _, err := Values[int32](floats); err == nil {
		t.Fatal("a float32 was read as int32")
	}
}

// proxy forwards connections, and can cut them.
type proxy struct {
	address string
	lock    sync.Mutex
	open    []net.Conn
}

func newProxy(t *testing.T, target string) *proxy {
	listener := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	found := &proxy{address: listener.Addr().String()}
	t.Cleanup(func() { listener.Close(); found.cut() })
	go func() {
		for {
			incoming, err := listener.Accept()
			if err != nil {
				return
			}
			outgoing, err := net.Dial("tcp", target)
			if err != nil {
				incoming.Close()
				continue
			}
			found.lock.Lock()
			found.open = append(found.open, incoming, outgoing)
			found.lock.Unlock()
			for _, ends := range [][2]net.Conn{{incoming, outgoing}, {outgoing, incoming}} {
				go func(from, to net.Conn) {
					_, _ = io.Copy(to, from)
					to.Close()
				}(ends[0], ends[1])
			}
		}
	}()
	return found
}

func (p *proxy) cut() {
	p.lock.Lock()
	defer p.lock.Unlock()
	for _, connection := range p.open {
		connection.Close()
	}
	p.open = nil
}
