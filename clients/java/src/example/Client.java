package example;

import static example.Expect.want;
import static example.Expect.wantEqual;
import static example.Expect.wantError;

import inference.GRPCInferenceServiceGrpc;
import inference.GRPCInferenceServiceGrpc.GRPCInferenceServiceBlockingStub;
import inference.Inference.ModelConfigRequest;
import inference.Inference.ModelMetadataRequest;
import inference.Inference.ModelMetadataResponse.TensorMetadata;
import inference.Inference.ModelReadyRequest;
import inference.Inference.ModelStatisticsRequest;
import inference.Inference.RepositoryIndexRequest;
import inference.Inference.RepositoryModelLoadRequest;
import inference.Inference.RepositoryModelUnloadRequest;
import inference.Inference.ServerLiveRequest;
import inference.Inference.ServerMetadataRequest;
import inference.Inference.ServerReadyRequest;
import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.reflection.v1alpha.ServerReflectionGrpc;
import io.grpc.reflection.v1alpha.ServerReflectionRequest;
import io.grpc.reflection.v1alpha.ServerReflectionResponse;
import io.grpc.stub.StreamObserver;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/**
 * A client of the v2 protocol: one method a call. {@code Client ADDRESS [CALL...]} prints a line for each: its name, and ok or what
 * went wrong. Every call has a deadline.
 */
public final class Client {
    /** A call; needs is the model that it needs beside "digits", or null. */
    record Call(String needs, Body body) {}

    interface Body {
        void run() throws Exception;
    }

    private final ManagedChannel channel; // one connection, which all stubs share; any number of threads may use it
    private final Map<String, Call> calls = new LinkedHashMap<>();

    private Client(ManagedChannel channel) {
        this.channel = channel;
        calls.put("live", new Call(null, this::live));
        calls.put("ready", new Call(null, this::ready));
        calls.put("model-ready", new Call(null, this::modelReady));
        calls.put("server-metadata", new Call(null, this::serverMetadata));
        calls.put("model-metadata", new Call(null, this::modelMetadata));
        calls.put("model-config", new Call(null, this::modelConfig));
        calls.put("statistics", new Call(null, this::statistics));
        calls.put("repository-index", new Call(null, this::repositoryIndex));
        calls.put("load-unload", new Call("spare", this::loadUnload));
        calls.put("health-check", new Call(null, this::healthCheck));
        calls.put("health-watch", new Call(null, this::healthWatch));
        calls.put("reflection", new Call(null, this::listServices));
        calls.putAll(new Infer(channel).calls());
    }

    public static void main(String[] arguments) throws InterruptedException {
        if (arguments.length == 0) {
            System.err.println("usage: Client ADDRESS [CALL...]");
            System.exit(2);
        }
        ManagedChannel channel = Grpc.newChannelBuilder(arguments[0], InsecureChannelCredentials.create()).build();
        List<String> wanted = List.of(arguments).subList(1, arguments.length);
        Client client = new Client(channel);
        boolean failed = false;
        for (String name : client.calls.keySet()) {
            if (wanted.isEmpty() || wanted.contains(name)) {
                String outcome = client.outcome(client.calls.get(name));
                failed |= outcome.startsWith("failed");
                System.out.println(name + "\t" + outcome);
            }
        }
        channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
        System.exit(failed ? 1 : 0);
    }

    private String outcome(Call call) {
        try {
            if (call.needs() != null && !serves(call.needs())) {
                return "skipped: the server has no model \"" + call.needs() + "\"";
            }
            call.body().run();
            return "ok";
        } catch (Exception | AssertionError error) {
            return "failed: " + String.valueOf(error.getMessage()).replaceAll("\\s+", " ");
        }
    }

    private boolean serves(String model) {
        try {
            stub().modelReady(ModelReadyRequest.newBuilder().setName(model).build());
            return true;
        } catch (StatusRuntimeException error) {
            if (error.getStatus().getCode() == Status.Code.NOT_FOUND) {
                return false;
            }
            throw error;
        }
    }

    /** A stub whose next call has ten seconds: the time counts from here on. */
    private GRPCInferenceServiceBlockingStub stub() {
        return GRPCInferenceServiceGrpc.newBlockingStub(channel).withDeadlineAfter(10, TimeUnit.SECONDS);
    }

    private void live() {
        want(stub().serverLive(ServerLiveRequest.getDefaultInstance()).getLive(), "not live");
    }

    private void ready() {
        want(stub().serverReady(ServerReadyRequest.getDefaultInstance()).getReady(), "not ready");
    }

    private boolean isReady(String model) {
        return stub().modelReady(ModelReadyRequest.newBuilder().setName(model).build()).getReady();
    }

    private void modelReady() {
        want(isReady("digits"), "not ready");
    }

    private void serverMetadata() {
        var answer = stub().serverMetadata(ServerMetadataRequest.getDefaultInstance());
        want(answer.getName().equals("batchmill") && !answer.getVersion().isEmpty(), answer);
    }

    private void modelMetadata() {
        var answer = stub().modelMetadata(ModelMetadataRequest.newBuilder().setName("digits").build());
        var image = TensorMetadata.newBuilder().setName("image").setDatatype("FP32").addShape(-1).addShape(64).build();
        wantEqual(List.of(image), answer.getInputsList());
        wantEqual(List.of("1", "2"), answer.getVersionsList());
    }

    private void modelConfig() {
        var config = stub().modelConfig(ModelConfigRequest.newBuilder().setName("digits").build()).getConfig();
        want(config.getName().equals("digits") && config.getMaxBatchSize() > 0, config);
    }

    private void statistics() {
        var request = ModelStatisticsRequest.newBuilder().setName("digits").setVersion("2").build();
        var found = stub().modelStatistics(request).getModelStatsList();
        want(found.size() == 1 && found.get(0).getVersion().equals("2") && found.get(0).hasInferenceStats(), found);
    }

    private void repositoryIndex() {
        var models = stub().repositoryIndex(RepositoryIndexRequest.newBuilder().setReady(true).build()).getModelsList();
        wantEqual(2L, models.stream().filter(model -> model.getName().equals("digits") && model.getState().equals("READY")).count());
    }

    private void loadUnload() {
        stub().repositoryModelUnload(RepositoryModelUnloadRequest.newBuilder().setModelName("spare").build());
        want(!isReady("spare"), "ready after unload");
        stub().repositoryModelLoad(RepositoryModelLoadRequest.newBuilder().setModelName("spare").build());
        want(isReady("spare"), "not ready after load");
    }

    private void healthCheck() {
        var health = HealthGrpc.newBlockingStub(channel).withDeadlineAfter(10, TimeUnit.SECONDS);
        for (String service : List.of("", "digits")) {
            wantEqual(ServingStatus.SERVING, health.check(HealthCheckRequest.newBuilder().setService(service).build()).getStatus());
        }
        wantError(() -> health.check(HealthCheckRequest.newBuilder().setService("nobody").build()), Status.Code.NOT_FOUND, "");
    }

    /** A watch never ends by itself: it is cancelled with the context that it was begun in. */
    private void healthWatch() throws Exception {
        Context.CancellableContext context = Context.current().withCancellation();
        try {
            context.call(() -> {
                var health = HealthGrpc.newBlockingStub(channel).withDeadlineAfter(10, TimeUnit.SECONDS);
                var watch = health.watch(HealthCheckRequest.getDefaultInstance());
                wantEqual(ServingStatus.SERVING, watch.next().getStatus());
                return null;
            });
        } finally {
            context.cancel(null);
        }
    }

    private void listServices() throws Exception {
        CompletableFuture<ServerReflectionResponse> told = new CompletableFuture<>();
        StreamObserver<ServerReflectionRequest> asked =
                ServerReflectionGrpc.newStub(channel).withDeadlineAfter(10, TimeUnit.SECONDS).serverReflectionInfo(new StreamObserver<>() {
                    @Override
                    public void onNext(ServerReflectionResponse answer) {
                        told.complete(answer);
                    }

                    @Override
                    public void onError(Throwable error) {
                        told.completeExceptionally(error);
                    }

                    @Override
                    public void onCompleted() {}
                });
        asked.onNext(ServerReflectionRequest.newBuilder().setListServices("").build());
        asked.onCompleted();
        var services = told.get(10, TimeUnit.SECONDS).getListServicesResponse().getServiceList();
        want(services.stream().anyMatch(service -> service.getName().equals("inference.GRPCInferenceService")), services);
    }
}
