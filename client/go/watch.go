package headstart

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "headstart.example/client/headstartv1"
)

// A watch gives up after so many cuts in a row without news: some six seconds, longer than a rolling
// restart's gap.
const (
	watchCuts         = 6
	firstWatchPause   = 200 * time.Millisecond
	longestWatchPause = 3 * time.Second
	// A stream that lived so long was healthy. So was one that its server ended in order: servers that
	// stop do so, and those that send their clients to new replicas.
	healthyStream = 5 * time.Second
)

// Watch is the states of one run:
//
//	watch := client.Watch(ctx, "", "game-1")
//	defer watch.Close()
//	for watch.Next() {
//		show(watch.Results())
//	}
//	return watch.Err()
type Watch struct {
	ctx      context.Context
	cancel   context.CancelFunc
	client   *Client
	request  *pb.WatchResultsRequest
	stream   pb.PrecomputeService_WatchResultsClient
	leave    context.CancelFunc
	openedAt time.Time
	answered bool
	cuts     int
	last     *Results
	err      error
}

// Watch watches a run to its end. A stream that is cut is resumed. ctx needs no deadline; the
// results of resultSteps alone are sent, of all steps if there are none.
func (c *Client) Watch(ctx context.Context, namespace, key string, resultSteps ...string) *Watch {
	ctx, cancel := context.WithCancel(ctx)
	request := &pb.WatchResultsRequest{Namespace: c.in(namespace), Key: key, ResultSteps: resultSteps}
	return &Watch{ctx: ctx, cancel: cancel, client: c, request: request}
}

// Next waits for the next state; it returns false after the ended one, or on an error.
func (w *Watch) Next() bool {
	if w.err != nil || (w.last != nil && w.last.Ended()) {
		return false
	}
	for {
		message, err := w.receive()
		if err == nil {
			w.answered = true
			news := message.GetResults()
			if news == nil || (w.last != nil && proto.Equal(news, w.last.GetResultsResponse)) {
				continue
			}
			w.cuts = 0
			w.last = &Results{news}
			if w.last.Ended() {
				w.Close()
			}
			return true
		}
		if w.err = w.rest(err); w.err != nil {
			w.Close()
			return false
		}
	}
}

// Results returns the state that Next has found.
func (w *Watch) Results() *Results { return w.last }

// Err returns the *Error that ended the watch; nil after the ended state.
func (w *Watch) Err() error { return w.err }

// Close ends the watch early. It may be called twice.
func (w *Watch) Close() { w.cancel() }

func (w *Watch) receive() (*pb.WatchResultsResponse, error) {
	if w.stream == nil {
		w.openedAt, w.answered = time.Now(), false
		var ctx context.Context
		ctx, w.leave = context.WithCancel(w.ctx)
		stream, err := w.client.Stub.WatchResults(ctx, w.request)
		if err != nil {
			w.leave()
			return nil, err
		}
		w.stream = stream
	}
	return w.stream.Recv()
}

// rest pauses after a cut; it returns an error where no other stream would help.
func (w *Watch) rest(err error) error {
	if w.stream != nil {
		w.leave()
		w.stream = nil
	}
	if w.ctx.Err() != nil {
		return errorFrom(w.ctx.Err())
	}
	planned := w.answered && errors.Is(err, io.EOF)
	if errors.Is(err, io.EOF) {
		err = &Error{Code: codes.Unavailable, Message: "the stream ended before the run did"}
	}
	cut := errorFrom(err)
	if !cut.Retryable() {
		return cut
	}
	w.cuts++
	if planned || time.Since(w.openedAt) > healthyStream {
		w.cuts = 1
	}
	if w.cuts >= watchCuts {
		return cut
	}
	pause := firstWatchPause << (w.cuts - 1)
	if cut.RetryAfter > pause {
		pause = cut.RetryAfter
	}
	if err := sleep(w.ctx, jittered(pause, longestWatchPause)); err != nil {
		return errorFrom(err)
	}
	return nil
}
