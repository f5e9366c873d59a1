package headstart

import (
	"context"
	"crypto/tls"
	"math/rand"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/health" // for healthCheckConfig
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	defaultTimeout  = 5 * time.Second
	mostBytes       = 64 << 20
	attempts        = 4
	firstPause      = 50 * time.Millisecond
	longestPause    = 500 * time.Millisecond
	connectAtMost   = 5 * time.Second
	pingEvery       = time.Minute
	pingAnswersIn   = 10 * time.Second
	reconnectAfter  = 100 * time.Millisecond
	reconnectAtMost = time.Second
)

// serviceConfig spreads calls over all servers that are SERVING. Retries are not in it, because
// gRPC's ignore RetryInfo: see retrying.
const serviceConfig = `{
  "loadBalancingConfig": [{"round_robin": {}}],
  "healthCheckConfig": {"serviceName": "headstart.v1.PrecomputeService"}
}`

// Options are what Dial takes; the zero value connects without TLS and without a token.
type Options struct {
	// Namespace is that of all calls that name none. Empty means the server's "default".
	Namespace string
	// Token returns the present token; nil sends none. See StaticToken.
	Token func(context.Context) (string, error)
	// TLS is nil for a connection without TLS.
	TLS *tls.Config
	// Timeout is the deadline of calls whose context has none, retries included; reads get their Wait
	// more. Default: 5 s. WatchResults gets none.
	Timeout time.Duration
	// DialOptions are added to the client's own.
	DialOptions []grpc.DialOption
}

// StaticToken returns the same token for every call.
func StaticToken(token string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return token, nil }
}

// Dial makes a client of target: "headstart:50051", or "dns:///headstart:50051", whose calls are
// spread over all addresses of the name. It connects with the first call.
func Dial(target string, options Options) (*Client, error) {
	security := plaintext()
	if options.TLS != nil {
		security = grpc.WithTransportCredentials(credentials.NewTLS(options.TLS))
	}
	pause := backoff.DefaultConfig
	pause.BaseDelay, pause.MaxDelay = reconnectAfter, reconnectAtMost
	all := append([]grpc.DialOption{
		security,
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: pause, MinConnectTimeout: connectAtMost}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: pingEvery, Timeout: pingAnswersIn, PermitWithoutStream: true,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(mostBytes)),
		grpc.WithChainUnaryInterceptor(retrying(options)),
		grpc.WithChainStreamInterceptor(streaming(options)),
	}, options.DialOptions...)
	if !strings.Contains(target, ":///") {
		target = "dns:///" + target
	}
	connection, err := grpc.Dial(target, all...)
	if err != nil {
		return nil, err
	}
	return newClient(connection, options), nil
}

// retrying gives every unary call a deadline and repeats it, up to four attempts in all, on
// UNAVAILABLE and CANCELLED. RetryInfo is the least pause. Calls fail with *Error.
func retrying(options Options) grpc.UnaryClientInterceptor {
	timeout := options.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	return func(ctx context.Context, method string, request, answer interface{}, connection *grpc.ClientConn, invoke grpc.UnaryInvoker, calls ...grpc.CallOption) error {
		if _, ok := ctx.Deadline(); !ok {
			within := timeout
			if waits, ok := request.(interface{ GetWait() *durationpb.Duration }); ok {
				within += waits.GetWait().AsDuration()
			}
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, within)
			defer cancel()
		}
		for attempt := 1; ; attempt++ {
			authorized, err := withToken(ctx, options)
			if err == nil {
				err = invoke(authorized, method, request, answer, connection, calls...)
			}
			if err == nil {
				return nil
			}
			found := errorFrom(err)
			if ctx.Err() != nil || !found.Retryable() || attempt == attempts {
				return found
			}
			pause := jittered(firstPause<<(attempt-1), longestPause)
			if found.RetryAfter > pause {
				pause = found.RetryAfter
			}
			if ends, ok := ctx.Deadline(); ok && time.Until(ends) <= pause {
				return found
			}
			if err := sleep(ctx, pause); err != nil {
				return errorFrom(err)
			}
		}
	}
}

func streaming(options Options) grpc.StreamClientInterceptor {
	return func(ctx context.Context, description *grpc.StreamDesc, connection *grpc.ClientConn, method string, open grpc.Streamer, calls ...grpc.CallOption) (grpc.ClientStream, error) {
		authorized, err := withToken(ctx, options)
		if err != nil {
			return nil, err
		}
		return open(authorized, description, connection, method, calls...)
	}
}

func withToken(ctx context.Context, options Options) (context.Context, error) {
	if options.Token == nil {
		return ctx, nil
	}
	token, err := options.Token(ctx)
	if err != nil {
		return nil, err
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), nil
}

// jittered returns a random pause of half to all of pause, and of most at most.
func jittered(pause, most time.Duration) time.Duration {
	if pause > most {
		pause = most
	}
	return pause/2 + time.Duration(rand.Int63n(int64(pause/2)+1))
}

func sleep(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
