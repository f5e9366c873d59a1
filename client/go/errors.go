package headstart

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "headstart.example/client/headstartv1"
)

// Violation is one rule that one field of a request breaks.
type Violation struct {
	// Field is a path such as "custom.inputs.text".
	Field string
	// Description is what the field must be.
	Description string
}

// Error is the error of every call. Branch on Code; the message is for people.
type Error struct {
	Code    codes.Code
	Message string
	// Violations has, with InvalidArgument, every rule that was broken.
	Violations []Violation
	// RetryAfter is, with ResourceExhausted or Unavailable, the least pause before a retry; 0 if the
	// server gave none.
	RetryAfter time.Duration
	// Metadata is that of ErrorInfo: the "missing" verb of a refusal, or the "error_id" in the log.
	Metadata map[string]string

	cause error
}

// Error returns the code and the message; the server's message lists the violations.
func (e *Error) Error() string {
	message := e.Message
	if message == "" {
		listed := make([]string, 0, len(e.Violations))
		for _, each := range e.Violations {
			listed = append(listed, fmt.Sprintf("%s: %s", each.Field, each.Description))
		}
		message = strings.Join(listed, "; ")
	}
	return fmt.Sprintf("%s: %s", e.Code, message)
}

// Unwrap returns gRPC's error, or the cause that stopped the call before it was sent.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus lets status.Code read the code.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Message) }

// Retryable returns whether the same call may succeed when it is repeated.
func (e *Error) Retryable() bool { return e.Code == codes.Unavailable || e.Code == codes.Canceled }

// errorFrom returns the *Error of anything that gRPC returns.
func errorFrom(err error) *Error {
	var ours *Error
	if errors.As(err, &ours) {
		return ours
	}
	switch {
	case errors.Is(err, context.Canceled):
		return &Error{Code: codes.Canceled, Message: err.Error(), cause: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: codes.DeadlineExceeded, Message: err.Error(), cause: err}
	}
	state := status.Convert(err)
	found := &Error{Code: state.Code(), Message: state.Message(), cause: err}
	for _, detail := range state.Details() {
		found.add(detail)
	}
	return found
}

// errorOfItem returns the error of one item of a batch.
func errorOfItem(item *pb.Error) *Error {
	return errorFrom(status.ErrorProto(&rpcstatus.Status{Code: item.Code, Message: item.Message, Details: item.Details}))
}

func (e *Error) add(detail interface{}) {
	switch detail := detail.(type) {
	case *errdetails.BadRequest:
		for _, each := range detail.FieldViolations {
			e.Violations = append(e.Violations, Violation{each.Field, each.Description})
		}
	case *errdetails.RetryInfo:
		if delay := detail.RetryDelay; delay != nil {
			e.RetryAfter = time.Duration(delay.Seconds)*time.Second + time.Duration(delay.Nanos)
		}
	case *errdetails.ErrorInfo:
		e.Metadata = detail.Metadata
	}
}

func invalid(field, description string, cause error) *Error {
	return &Error{Code: codes.InvalidArgument, Violations: []Violation{{field, description}}, cause: cause}
}
