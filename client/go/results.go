package headstart

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"

	pb "headstart.example/client/headstartv1"
)

// Results is a run and whatever exists of its results.
type Results struct {
	*pb.GetResultsResponse
}

// Ended returns whether the run will not change any more.
func (r *Results) Ended() bool {
	return r.GetStatus() >= pb.PrecomputeStatus_PRECOMPUTE_STATUS_COMPLETED
}

// Artifact returns what a step of a custom pipeline returned; nil if that does not exist (yet).
func (r *Results) Artifact(step string) *pb.Artifact { return r.GetCustom().GetArtifacts()[step] }

// Decode reads the JSON that a step returned into value, and reports whether it exists. Whole
// numbers are exact in an int64, a *big.Int or, where value is an interface, a json.Number.
func (r *Results) Decode(step string, value interface{}) (bool, error) {
	artifact := r.Artifact(step)
	if artifact == nil {
		return false, nil
	}
	text, ok := artifact.Value.(*pb.Artifact_Json)
	if !ok {
		return true, fmt.Errorf("step %s returned no JSON but %T", step, artifact.Value)
	}
	decoder := json.NewDecoder(strings.NewReader(text.Json))
	decoder.UseNumber()
	return true, decoder.Decode(value)
}

// Number is a type that a tensor's values can have.
type Number interface {
	bool | int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64 |
		float32 | float64 | complex64 | complex128
}

// Values returns a tensor's values in row-major order. T must be its dtype; float16 has no type in
// Go, so read its two bytes a value from tensor.Data.
func Values[T Number](tensor *pb.Tensor) ([]T, error) {
	var one T
	if name := fmt.Sprintf("%T", one); name != tensor.GetDtype() {
		return nil, fmt.Errorf("the tensor's values are %s, not %s", tensor.GetDtype(), name)
	}
	values := make([]T, len(tensor.Data)/binary.Size(one))
	return values, binary.Read(bytes.NewReader(tensor.Data), binary.LittleEndian, values)
}
