package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip" // its import is what makes gzip known
	"google.golang.org/grpc/metadata"

	pb "batchmill-client/build/inference"
)

// nine is a picture of 8 x 8 pixels, in sixteenths.
var nine = []float32{
	0, 0, 2, 10, 16, 11, 1, 0,
	0, 0, 13, 13, 10, 16, 8, 0,
	0, 4, 14, 1, 8, 14, 1, 0,
	0, 4, 15, 12, 15, 8, 0, 0,
	0, 0, 6, 7, 14, 5, 0, 0,
	0, 1, 2, 0, 12, 5, 0, 0,
	0, 8, 15, 6, 13, 4, 0, 0,
	0, 0, 5, 11, 16, 3, 0, 0,
}

func pixels() []float32 {
	scaled := make([]float32, len(nine))
	for i, sixteenths := range nine {
		scaled[i] = sixteenths / 16
	}
	return scaled
}

// request asks "digits" about the nine, count times. Raw contents: little-endian bytes, one entry for each input, in their order.
func request(count int) *pb.ModelInferRequest {
	raw, err := binary.Append(nil, binary.LittleEndian, slices.Repeat(pixels(), count))
	if err != nil {
		panic(err) // floats have a size
	}
	return &pb.ModelInferRequest{
		ModelName:        "digits",
		Inputs:           []*pb.ModelInferRequest_InferInputTensor{{Name: "image", Datatype: "FP32", Shape: []int64{int64(count), 64}}},
		RawInputContents: [][]byte{raw},
	}
}

// output is the index of an output by name, and of its raw contents; -1 where there is none.
func output(answer *pb.ModelInferResponse, name string) int {
	return slices.IndexFunc(answer.GetOutputs(), func(o *pb.ModelInferResponse_InferOutputTensor) bool { return o.Name == name })
}

// wantLabels holds the output "label" of a raw answer against count times the digit.
func wantLabels(answer *pb.ModelInferResponse, digit int64, count int) error {
	at := output(answer, "label")
	if at < 0 || len(answer.RawOutputContents) != len(answer.Outputs) {
		return fmt.Errorf("got no raw output \"label\": %v", answer.GetOutputs())
	}
	labels := make([]int64, len(answer.RawOutputContents[at])/8)
	if _, err := binary.Decode(answer.RawOutputContents[at], binary.LittleEndian, labels); err != nil {
		return err
	}
	return want(slices.Equal(labels, slices.Repeat([]int64{digit}, count)), "labels %v", labels)
}

func (c *client) inferRaw(ctx context.Context) error {
	answer, err := c.ModelInfer(ctx, request(3))
	if err != nil {
		return err
	}
	return wantLabels(answer, 9, 3)
}

// Typed contents: numbers in a field for their datatype. The answer is typed where the parameter asks for that, raw otherwise.
func (c *client) inferTyped(ctx context.Context) error {
	typed := request(1)
	typed.RawInputContents = nil
	typed.Inputs[0].Contents = &pb.InferTensorContents{Fp32Contents: pixels()}
	typed.Parameters = map[string]*pb.InferParameter{"binary_data_output": {ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: false}}}
	answer, err := c.ModelInfer(ctx, typed)
	if err != nil {
		return err
	}
	at := output(answer, "label")
	return want(at >= 0 && slices.Equal(answer.Outputs[at].GetContents().GetInt64Contents(), []int64{9}), "%v", answer)
}

// The first version takes this nine for an eight.
func (c *client) version(ctx context.Context) error {
	first := request(1)
	first.ModelVersion = "1"
	answer, err := c.ModelInfer(ctx, first)
	if err != nil {
		return err
	}
	return errors.Join(want(answer.ModelVersion == "1", "version %q", answer.ModelVersion), wantLabels(answer, 8, 1))
}

// echo asks a model that answers its input "x" as its output "y".
func (c *client) echo(ctx context.Context, model, datatype string, shape []int64, raw []byte) error {
	input := &pb.ModelInferRequest_InferInputTensor{Name: "x", Datatype: datatype, Shape: shape}
	asked := &pb.ModelInferRequest{ModelName: model, Inputs: []*pb.ModelInferRequest_InferInputTensor{input}, RawInputContents: [][]byte{raw}}
	answer, err := c.ModelInfer(ctx, asked)
	if err != nil {
		return err
	}
	same := output(answer, "y") == 0 && answer.Outputs[0].Datatype == datatype && slices.Equal(answer.Outputs[0].Shape, shape)
	return want(same && len(answer.RawOutputContents) == 1 && string(answer.RawOutputContents[0]) == string(raw), "%v", answer)
}

// BYTES: each element behind its length, a little-endian uint32. Any bytes come back as they were.
func (c *client) bytes(ctx context.Context) error {
	var raw []byte
	for _, element := range []string{"nine", "", "\x00\xff"} {
		raw = append(binary.LittleEndian.AppendUint32(raw, uint32(len(element))), element...)
	}
	return c.echo(ctx, "identity_bytes", "BYTES", []int64{1, 3}, raw)
}

// FP16 travels raw alone: 1, -2 and infinity.
func (c *client) fp16(ctx context.Context) error {
	return c.echo(ctx, "identity_fp16", "FP16", []int64{1, 3}, []byte{0x00, 0x3c, 0x00, 0xc0, 0x00, 0x7c})
}

func (c *client) idAndParameters(ctx context.Context) error {
	asked := request(1)
	asked.Id = "picture-1"
	asked.Parameters = map[string]*pb.InferParameter{
		"timeout": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 5_000_000}}, // µs until the run has to start
		"note":    {ParameterChoice: &pb.InferParameter_StringParam{StringParam: "of the caller's own"}},
	}
	answer, err := c.ModelInfer(ctx, asked)
	if err != nil {
		return err
	}
	return errors.Join(want(answer.Id == "picture-1", "id %q", answer.Id), wantLabels(answer, 9, 1))
}

func (c *client) requestedOutputs(ctx context.Context) error {
	asked := request(1)
	asked.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "label"}}
	answer, err := c.ModelInfer(ctx, asked)
	if err != nil {
		return err
	}
	return errors.Join(want(len(answer.Outputs) == 1, "%d outputs", len(answer.Outputs)), wantLabels(answer, 9, 1))
}

// Metadata goes out with the context; what comes back is in the headers, before the answer, and in the trailers, after it.
func (c *client) headersAndTrailers(ctx context.Context) error {
	var headers, trailers metadata.MD
	ctx = metadata.AppendToOutgoingContext(ctx, "x-request-id", "request-1", "x-server-timing", "1", "note-bin", "\x00\xff")
	if _, err := c.ModelInfer(ctx, request(1), grpc.Header(&headers), grpc.Trailer(&trailers)); err != nil {
		return err
	}
	return errors.Join(
		want(slices.Equal(headers.Get("x-request-id"), []string{"request-1"}), "headers %v", headers),
		want(slices.Equal(trailers.Get("x-model-version"), []string{"2"}) && len(trailers.Get("server-timing")) == 1, "trailers %v", trailers),
	)
}

// A request compressed with gzip. Its answer comes compressed as well; the library handles that.
func (c *client) compressed(ctx context.Context) error {
	answer, err := c.ModelInfer(ctx, request(1000), grpc.UseCompressor(gzip.Name))
	if err != nil {
		return err
	}
	return wantLabels(answer, 9, 1000)
}

func (c *client) unknownModel(ctx context.Context) error {
	asked := request(1)
	asked.ModelName = "nobody"
	_, err := c.ModelInfer(ctx, asked)
	return wantError(err, codes.NotFound, `unknown model "nobody"`)
}

func (c *client) badShape(ctx context.Context) error {
	asked := request(1)
	asked.Inputs[0].Shape = []int64{1, 63}
	asked.RawInputContents[0] = asked.RawInputContents[0][:63*4]
	_, err := c.ModelInfer(ctx, asked)
	return wantError(err, codes.InvalidArgument, "[1,63] given, [-1,64] wanted")
}

// slowly asks a model that takes a second or more.
func (c *client) slowly(ctx context.Context) error {
	input := &pb.ModelInferRequest_InferInputTensor{Name: "x", Datatype: "FP32", Shape: []int64{1, 256, 256}}
	raw := make([]byte, 256*256*4)
	_, err := c.ModelInfer(ctx, &pb.ModelInferRequest{
		ModelName: "slow", Inputs: []*pb.ModelInferRequest_InferInputTensor{input}, RawInputContents: [][]byte{raw},
	})
	return err
}

// The deadline of a context goes to the server, which does not begin what would come too late.
func (c *client) deadline(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	return wantError(c.slowly(ctx), codes.DeadlineExceeded, "")
}

func (c *client) cancel(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	time.AfterFunc(100*time.Millisecond, cancel)
	return wantError(c.slowly(ctx), codes.Canceled, "")
}

// Five requests on one stream, the third of them wrong: it is answered by an error, in its place, and the stream goes on.
func (c *client) stream(ctx context.Context) error {
	stream, err := c.ModelStreamInfer(ctx)
	if err != nil {
		return err
	}
	for i := range 5 {
		asked := request(1)
		asked.Id = strconv.Itoa(i)
		if i == 2 {
			asked.Inputs[0].Name = "picture"
		}
		if err := stream.Send(asked); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for i := range 5 {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		right := answer.ErrorMessage != ""
		if i != 2 {
			right = answer.InferResponse.GetId() == strconv.Itoa(i) && wantLabels(answer.InferResponse, 9, 1) == nil
		}
		if err := want(right, "answer %d: %v", i, answer); err != nil {
			return err
		}
	}
	_, err = stream.Recv()
	return want(err == io.EOF, "%v after the last answer", err)
}
