// Package headstart calls a Headstart service: deadlines, retries, resumed watches, and errors with
// their fields.
package headstart

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "headstart.example/client/headstartv1"
)

const mostStarts = 1000

// Client calls a service. Make one a process, by Dial. All its methods may be called at once, and
// fail with *Error.
type Client struct {
	// Stub is the generated client, whose unary calls have the same deadlines, retries and errors.
	Stub       pb.PrecomputeServiceClient
	connection *grpc.ClientConn
	namespace  string
}

func newClient(connection *grpc.ClientConn, options Options) *Client {
	return &Client{pb.NewPrecomputeServiceClient(connection), connection, options.Namespace}
}

// Close closes the connection; calls under way fail.
func (c *Client) Close() error { return c.connection.Close() }

// Start is what to start.
type Start struct {
	Namespace string
	Key       string
	Pipeline  string
	// Inputs is marshalled to one JSON object; nil is no inputs. json.Marshal writes the float64 3.0
	// as the whole number 3.
	Inputs interface{}
	// TTL is how long results live after the run has ended. 0 is the server's, 30 minutes.
	TTL time.Duration
	// Restart computes anew even when the same inputs are computed.
	Restart bool
	// RequestID is the same in each repetition of this start. Default with Restart: a random one.
	RequestID string
	// ExpectedNeedIn is in how long the results are likely to be asked for; nil is at once.
	ExpectedNeedIn *time.Duration
}

// Started is what one start of StartMany did: either field is set.
type Started struct {
	Response *pb.StartPrecomputeResponse
	Err      *Error
}

// Read is what to read, and how long to wait for it.
type Read struct {
	Namespace string
	// Wait is how long to wait for RequiredSteps, up to 10 minutes.
	Wait time.Duration
	// RequiredSteps are the steps to wait for; none is all.
	RequiredSteps []string
	// ResultSteps are the steps whose results are wanted; none is all.
	ResultSteps []string
	// MinRevision is the least revision of GetResults.
	MinRevision int64
	// MinReady ends the wait of GetMany when so many keys are ready; 0 waits for all.
	MinReady int32
}

// Found is what exists of one key of GetMany: either field is set.
type Found struct {
	Results *Results
	Err     *Error
}

// Start starts a run, or joins or reuses the one of the same key and inputs.
func (c *Client) Start(ctx context.Context, start Start) (*pb.StartPrecomputeResponse, error) {
	request, err := c.startRequest(start)
	if err != nil {
		return nil, err
	}
	return c.Stub.StartPrecompute(ctx, request)
}

// StartMany starts many runs, and returns for each what Start returns. More than 1,000 are sent in
// several calls, one after the other.
func (c *Client) StartMany(ctx context.Context, starts []Start) ([]Started, error) {
	requests := make([]*pb.StartPrecomputeRequest, 0, len(starts))
	for _, start := range starts {
		request, err := c.startRequest(start)
		if err != nil {
			return nil, err
		}
		requests = append(requests, request)
	}
	found := make([]Started, 0, len(starts))
	for len(requests) > 0 {
		batch := requests
		if len(batch) > mostStarts {
			batch = batch[:mostStarts]
		}
		requests = requests[len(batch):]
		answer, err := c.Stub.BatchStartPrecomputes(ctx, &pb.BatchStartPrecomputesRequest{Requests: batch})
		if err != nil {
			return found, err
		}
		for _, item := range answer.Results {
			if failed := item.GetError(); failed != nil {
				found = append(found, Started{Err: errorOfItem(failed)})
			} else {
				found = append(found, Started{Response: item.GetResponse()})
			}
		}
	}
	return found, nil
}

// GetResults returns what exists of a run's results, after at most read.Wait.
func (c *Client) GetResults(ctx context.Context, key string, read Read) (*Results, error) {
	answer, err := c.Stub.GetResults(ctx, &pb.GetResultsRequest{
		Namespace:     c.in(read.Namespace),
		Key:           key,
		Wait:          durationpb.New(read.Wait),
		RequiredSteps: read.RequiredSteps,
		ResultSteps:   read.ResultSteps,
		MinRevision:   read.MinRevision,
	})
	if err != nil {
		return nil, err
	}
	return &Results{answer}, nil
}

// GetMany returns for each key, in their order, what GetResults returns. Without keys no call is made.
func (c *Client) GetMany(ctx context.Context, keys []string, read Read) ([]Found, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	answer, err := c.Stub.BatchGetResults(ctx, &pb.BatchGetResultsRequest{
		Namespace:     c.in(read.Namespace),
		Keys:          keys,
		Wait:          durationpb.New(read.Wait),
		RequiredSteps: read.RequiredSteps,
		ResultSteps:   read.ResultSteps,
		MinReady:      read.MinReady,
	})
	if err != nil {
		return nil, err
	}
	found := make([]Found, 0, len(answer.Results))
	for _, item := range answer.Results {
		if failed := item.GetError(); failed != nil {
			found = append(found, Found{Err: errorOfItem(failed)})
		} else {
			found = append(found, Found{Results: &Results{item.GetResponse()}})
		}
	}
	return found, nil
}

// GetStatus returns a run's status without its results.
func (c *Client) GetStatus(ctx context.Context, namespace, key string) (*pb.GetStatusResponse, error) {
	return c.Stub.GetStatus(ctx, &pb.GetStatusRequest{Namespace: c.in(namespace), Key: key})
}

// Cancel cancels a run that has not ended; revision 0 is any.
func (c *Client) Cancel(ctx context.Context, namespace, key string, revision int64) (*pb.CancelPrecomputeResponse, error) {
	return c.Stub.CancelPrecompute(ctx, &pb.CancelPrecomputeRequest{Namespace: c.in(namespace), Key: key, Revision: revision})
}

// Delete deletes a run and its results, and returns whether there was one; revision 0 is any.
func (c *Client) Delete(ctx context.Context, namespace, key string, revision int64) (bool, error) {
	answer, err := c.Stub.DeletePrecompute(ctx, &pb.DeletePrecomputeRequest{Namespace: c.in(namespace), Key: key, Revision: revision})
	return answer.GetDeleted(), err
}

// Touch lets results live for ttl at least, and returns when they are forgotten; a ttl of 0 is the
// server's.
func (c *Client) Touch(ctx context.Context, namespace, key string, ttl time.Duration) (time.Time, error) {
	answer, err := c.Stub.TouchPrecompute(ctx, &pb.TouchPrecomputeRequest{Namespace: c.in(namespace), Key: key, Ttl: positive(ttl)})
	if err != nil {
		return time.Time{}, err
	}
	return answer.ExpiresAt.AsTime(), nil
}

// List calls each with every run of a namespace, in order, over as many pages as that takes. It ends
// with the first error of each.
func (c *Client) List(ctx context.Context, namespace string, each func(*pb.PrecomputeSummary) error, statuses ...pb.PrecomputeStatus) error {
	if namespace = c.in(namespace); namespace == "" {
		namespace = "default" // empty would list every namespace
	}
	request := &pb.ListPrecomputesRequest{Namespace: namespace, Statuses: statuses}
	for {
		page, err := c.Stub.ListPrecomputes(ctx, request)
		if err != nil {
			return err
		}
		for _, summary := range page.Precomputes {
			if err := each(summary); err != nil {
				return err
			}
		}
		if request.PageToken = page.NextPageToken; request.PageToken == "" {
			return nil
		}
	}
}

func (c *Client) in(namespace string) string {
	if namespace == "" {
		return c.namespace
	}
	return namespace
}

func (c *Client) startRequest(start Start) (*pb.StartPrecomputeRequest, error) {
	custom := &pb.CustomSpec{Pipeline: start.Pipeline}
	if start.Inputs != nil {
		// Not structpb, whose numbers are doubles.
		text, err := json.Marshal(start.Inputs)
		if err != nil {
			return nil, invalid("custom.inputs", err.Error(), err)
		}
		custom.InputsJson = string(text)
	}
	request := &pb.StartPrecomputeRequest{
		Namespace: c.in(start.Namespace),
		Key:       start.Key,
		Spec:      &pb.StartPrecomputeRequest_Custom{Custom: custom},
		Ttl:       positive(start.TTL),
		Restart:   start.Restart,
		RequestId: start.RequestID,
	}
	if start.ExpectedNeedIn != nil {
		request.ExpectedNeedIn = durationpb.New(*start.ExpectedNeedIn)
	}
	if request.Restart && request.RequestId == "" {
		bits := make([]byte, 16)
		if _, err := rand.Read(bits); err != nil {
			return nil, &Error{Code: codes.Internal, Message: err.Error(), cause: err}
		}
		request.RequestId = hex.EncodeToString(bits)
	}
	return request, nil
}

// positive leaves 0 out, which means the server's default.
func positive(duration time.Duration) *durationpb.Duration {
	if duration == 0 {
		return nil
	}
	return durationpb.New(duration)
}
