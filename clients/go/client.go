// A client of the v2 protocol: one function a call. `client ADDRESS [CALL...]` prints a line for each: its name, and ok or what went wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"

	pb "batchmill-client/build/inference"
)

// client is one connection, which every call shares; it may be used by any number of goroutines.
type client struct {
	pb.GRPCInferenceServiceClient
	connection *grpc.ClientConn
}

type call struct {
	name, model string // model: what the call needs beside "digits"
	make        func(*client, context.Context) error
}

var calls = []call{
	{"live", "", (*client).live},
	{"ready", "", (*client).ready},
	{"model-ready", "", (*client).modelReady},
	{"server-metadata", "", (*client).serverMetadata},
	{"model-metadata", "", (*client).modelMetadata},
	{"model-config", "", (*client).modelConfig},
	{"statistics", "", (*client).statistics},
	{"repository-index", "", (*client).repositoryIndex},
	{"load-unload", "spare", (*client).loadUnload},
	{"infer-raw", "", (*client).inferRaw},
	{"infer-typed", "", (*client).inferTyped},
	{"version", "", (*client).version},
	{"bytes", "identity_bytes", (*client).bytes},
	{"fp16", "identity_fp16", (*client).fp16},
	{"id-parameters", "", (*client).idAndParameters},
	{"outputs", "", (*client).requestedOutputs},
	{"metadata", "", (*client).headersAndTrailers},
	{"compressed-request", "", (*client).compressed},
	{"compressed-response", "", (*client).compressed},
	{"unknown-model", "", (*client).unknownModel},
	{"bad-shape", "", (*client).badShape},
	{"deadline", "slow", (*client).deadline},
	{"cancel", "slow", (*client).cancel},
	{"stream", "", (*client).stream},
	{"health-check", "", (*client).healthCheck},
	{"health-watch", "", (*client).healthWatch},
	{"reflection", "", (*client).listServices},
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: client ADDRESS [CALL...]")
		os.Exit(2)
	}
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	defer connection.Close()
	client := &client{pb.NewGRPCInferenceServiceClient(connection), connection}
	failed := false
	for _, call := range calls {
		if wanted := os.Args[2:]; len(wanted) > 0 && !slices.Contains(wanted, call.name) {
			continue
		}
		outcome := client.outcome(call)
		failed = failed || strings.HasPrefix(outcome, "failed")
		fmt.Printf("%s\t%s\n", call.name, outcome)
	}
	if failed {
		os.Exit(1)
	}
}

// outcome makes a call, which gets ten seconds as its deadline unless it sets an earlier one.
func (c *client) outcome(call call) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if call.model != "" {
		if _, err := c.ModelReady(ctx, &pb.ModelReadyRequest{Name: call.model}); status.Code(err) == codes.NotFound {
			return fmt.Sprintf("skipped: the server has no model %q", call.model)
		}
	}
	if err := call.make(c, ctx); err != nil {
		return "failed: " + strings.Join(strings.Fields(err.Error()), " ")
	}
	return "ok"
}

// want says what is wrong when the condition does not hold.
func want(condition bool, format string, got ...any) error {
	if condition {
		return nil
	}
	return fmt.Errorf("got "+format, got...)
}

// wantError holds an error against its code and a part of its text.
func wantError(err error, code codes.Code, text string) error {
	answer := status.Convert(err)
	return want(answer.Code() == code && strings.Contains(answer.Message(), text), "%s %q", answer.Code(), answer.Message())
}

func (c *client) live(ctx context.Context) error {
	answer, err := c.ServerLive(ctx, &pb.ServerLiveRequest{})
	return errors.Join(err, want(answer.GetLive(), "live: %v", answer))
}

func (c *client) ready(ctx context.Context) error {
	answer, err := c.ServerReady(ctx, &pb.ServerReadyRequest{})
	return errors.Join(err, want(answer.GetReady(), "ready: %v", answer))
}

func (c *client) modelReady(ctx context.Context) error {
	answer, err := c.ModelReady(ctx, &pb.ModelReadyRequest{Name: "digits", Version: "1"})
	return errors.Join(err, want(answer.GetReady(), "ready: %v", answer))
}

func (c *client) serverMetadata(ctx context.Context) error {
	answer, err := c.ServerMetadata(ctx, &pb.ServerMetadataRequest{})
	return errors.Join(err, want(answer.GetName() == "batchmill" && answer.GetVersion() != "", "%v", answer))
}

func (c *client) modelMetadata(ctx context.Context) error {
	answer, err := c.ModelMetadata(ctx, &pb.ModelMetadataRequest{Name: "digits"})
	if err != nil {
		return err
	}
	inputs := answer.GetInputs()
	right := len(inputs) == 1 && inputs[0].Name == "image" && inputs[0].Datatype == "FP32" && slices.Equal(inputs[0].Shape, []int64{-1, 64})
	return want(right && slices.Equal(answer.Versions, []string{"1", "2"}), "%v", answer)
}

func (c *client) modelConfig(ctx context.Context) error {
	answer, err := c.ModelConfig(ctx, &pb.ModelConfigRequest{Name: "digits"})
	return errors.Join(err, want(answer.GetConfig().GetName() == "digits" && answer.GetConfig().GetMaxBatchSize() > 0, "%v", answer))
}

func (c *client) statistics(ctx context.Context) error {
	answer, err := c.ModelStatistics(ctx, &pb.ModelStatisticsRequest{Name: "digits", Version: "2"})
	if err != nil {
		return err
	}
	found := answer.GetModelStats()
	return want(len(found) == 1 && found[0].Name == "digits" && found[0].Version == "2" && found[0].InferenceStats != nil, "%v", answer)
}

func (c *client) repositoryIndex(ctx context.Context) error {
	answer, err := c.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{Ready: true})
	digits := 0
	for _, model := range answer.GetModels() {
		if model.Name == "digits" && model.State == "READY" {
			digits++
		}
	}
	return errors.Join(err, want(digits == 2, "%v", answer))
}

func (c *client) loadUnload(ctx context.Context) error {
	if _, err := c.RepositoryModelUnload(ctx, &pb.RepositoryModelUnloadRequest{ModelName: "spare"}); err != nil {
		return err
	}
	gone, err := c.ModelReady(ctx, &pb.ModelReadyRequest{Name: "spare"})
	if err := errors.Join(err, want(!gone.GetReady(), "ready after unload")); err != nil {
		return err
	}
	if _, err := c.RepositoryModelLoad(ctx, &pb.RepositoryModelLoadRequest{ModelName: "spare"}); err != nil {
		return err
	}
	back, err := c.ModelReady(ctx, &pb.ModelReadyRequest{Name: "spare"})
	return errors.Join(err, want(back.GetReady(), "not ready after load"))
}

func (c *client) healthCheck(ctx context.Context) error {
	health := grpc_health_v1.NewHealthClient(c.connection)
	for _, service := range []string{"", "digits"} {
		answer, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
		if err := errors.Join(err, want(answer.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING, "%v", answer)); err != nil {
			return err
		}
	}
	_, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "nobody"})
	return wantError(err, codes.NotFound, "")
}

func (c *client) healthWatch(ctx context.Context) error {
	watch, err := grpc_health_v1.NewHealthClient(c.connection).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	answer, err := watch.Recv() // ends with the context of this call
	return errors.Join(err, want(answer.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING, "%v", answer))
}

func (c *client) listServices(ctx context.Context) error {
	asked, err := reflection.NewServerReflectionClient(c.connection).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	list := &reflection.ServerReflectionRequest_ListServices{}
	if err := asked.Send(&reflection.ServerReflectionRequest{MessageRequest: list}); err != nil {
		return err
	}
	answer, err := asked.Recv()
	found := slices.ContainsFunc(answer.GetListServicesResponse().GetService(), func(service *reflection.ServiceResponse) bool {
		return service.Name == "inference.GRPCInferenceService"
	})
	return errors.Join(err, want(found, "%v", answer))
}
