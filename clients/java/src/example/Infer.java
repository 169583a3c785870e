package example;

import static example.Expect.want;
import static example.Expect.wantEqual;
import static example.Expect.wantError;

import com.google.protobuf.ByteString;
import inference.GRPCInferenceServiceGrpc;
import inference.GRPCInferenceServiceGrpc.GRPCInferenceServiceBlockingStub;
import inference.Inference.InferParameter;
import inference.Inference.InferTensorContents;
import inference.Inference.ModelInferRequest;
import inference.Inference.ModelInferRequest.InferInputTensor;
import inference.Inference.ModelInferRequest.InferRequestedOutputTensor;
import inference.Inference.ModelInferResponse;
import inference.Inference.ModelStreamInferResponse;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;

/** Inference: tensors as bytes and as numbers, versions, metadata, errors, deadlines, streams. */
final class Infer {
    /** A picture of 8 x 8 pixels, in sixteenths. */
    private static final float[] NINE = {
        0, 0, 2, 10, 16, 11, 1, 0,
        0, 0, 13, 13, 10, 16, 8, 0,
        0, 4, 14, 1, 8, 14, 1, 0,
        0, 4, 15, 12, 15, 8, 0, 0,
        0, 0, 6, 7, 14, 5, 0, 0,
        0, 1, 2, 0, 12, 5, 0, 0,
        0, 8, 15, 6, 13, 4, 0, 0,
        0, 0, 5, 11, 16, 3, 0, 0,
    };

    private final ManagedChannel channel;

    Infer(ManagedChannel channel) {
        this.channel = channel;
    }

    Map<String, Client.Call> calls() {
        Map<String, Client.Call> calls = new LinkedHashMap<>();
        calls.put("infer-raw", new Client.Call(null, this::raw));
        calls.put("infer-typed", new Client.Call(null, this::typed));
        calls.put("version", new Client.Call(null, this::version));
        calls.put("bytes", new Client.Call("identity_bytes", this::bytes));
        calls.put("fp16", new Client.Call("identity_fp16", this::fp16));
        calls.put("id-parameters", new Client.Call(null, this::idAndParameters));
        calls.put("outputs", new Client.Call(null, this::requestedOutputs));
        calls.put("metadata", new Client.Call(null, this::headersAndTrailers));
        calls.put("compressed-request", new Client.Call(null, this::compressed));
        calls.put("compressed-response", new Client.Call(null, this::compressed));
        calls.put("unknown-model", new Client.Call(null, this::unknownModel));
        calls.put("bad-shape", new Client.Call(null, this::badShape));
        calls.put("deadline", new Client.Call("slow", this::deadline));
        calls.put("cancel", new Client.Call("slow", this::cancel));
        calls.put("stream", new Client.Call(null, this::stream));
        return calls;
    }

    /** A stub whose next call has ten seconds: the time counts from here on. */
    private GRPCInferenceServiceBlockingStub stub() {
        return GRPCInferenceServiceGrpc.newBlockingStub(channel).withDeadlineAfter(10, TimeUnit.SECONDS);
    }

    /** Asks about the nine, count times. Raw contents: little-endian bytes, one entry for each input, in their order. */
    private static ModelInferRequest.Builder request(int count) {
        ByteBuffer raw = ByteBuffer.allocate(count * 64 * Float.BYTES).order(ByteOrder.LITTLE_ENDIAN);
        for (int i = 0; i < count * 64; i++) {
            raw.putFloat(NINE[i % 64] / 16);
        }
        var image = InferInputTensor.newBuilder().setName("image").setDatatype("FP32").addShape(count).addShape(64);
        return ModelInferRequest.newBuilder().setModelName("digits").addInputs(image).addRawInputContents(ByteString.copyFrom(raw.flip()));
    }

    private static int output(ModelInferResponse answer, String name) {
        return answer.getOutputsList().stream().map(ModelInferResponse.InferOutputTensor::getName).toList().indexOf(name);
    }

    private static void wantLabels(ModelInferResponse answer, long digit, int count) {
        int at = output(answer, "label");
        want(at >= 0 && answer.getRawOutputContentsCount() == answer.getOutputsCount(), answer.getOutputsList());
        var raw = answer.getRawOutputContents(at).asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN).asLongBuffer();
        List<Long> labels = new ArrayList<>();
        while (raw.hasRemaining()) {
            labels.add(raw.get());
        }
        wantEqual(Collections.nCopies(count, digit), labels);
    }

    private void raw() {
        wantLabels(stub().modelInfer(request(3).build()), 9, 3);
    }

    /** Typed contents: numbers in a field for their datatype. The answer is typed where the parameter asks for that, raw otherwise. */
    private void typed() {
        var contents = InferTensorContents.newBuilder();
        for (float sixteenths : NINE) {
            contents.addFp32Contents(sixteenths / 16);
        }
        var typed = request(1).clearRawInputContents();
        typed.getInputsBuilder(0).setContents(contents);
        typed.putParameters("binary_data_output", InferParameter.newBuilder().setBoolParam(false).build());
        var answer = stub().modelInfer(typed.build());
        int at = output(answer, "label");
        want(at >= 0 && answer.getOutputs(at).getContents().getInt64ContentsList().equals(List.of(9L)), answer);
    }

    /** The first version takes this nine for an eight. */
    private void version() {
        var answer = stub().modelInfer(request(1).setModelVersion("1").build());
        wantEqual("1", answer.getModelVersion());
        wantLabels(answer, 8, 1);
    }

    /** Of a model that answers its input "x" as its output "y". */
    private void echo(String model, String datatype, ByteString raw) {
        var x = InferInputTensor.newBuilder().setName("x").setDatatype(datatype).addShape(1).addShape(3);
        var answer = stub().modelInfer(ModelInferRequest.newBuilder().setModelName(model).addInputs(x).addRawInputContents(raw).build());
        wantEqual(0, output(answer, "y"));
        wantEqual(datatype, answer.getOutputs(0).getDatatype());
        wantEqual(List.of(1L, 3L), answer.getOutputs(0).getShapeList());
        wantEqual(List.of(raw), answer.getRawOutputContentsList());
    }

    /** Each element behind its length, a little-endian uint32. Any bytes come back as they were. */
    private void bytes() {
        ByteBuffer raw = ByteBuffer.allocate(64).order(ByteOrder.LITTLE_ENDIAN);
        for (byte[] element : List.of("nine".getBytes(StandardCharsets.UTF_8), new byte[0], new byte[] {0, (byte) 0xff})) {
            raw.putInt(element.length).put(element);
        }
        echo("identity_bytes", "BYTES", ByteString.copyFrom(raw.flip()));
    }

    /** FP16 travels raw alone: 1, -2 and infinity. */
    private void fp16() {
        echo("identity_fp16", "FP16", ByteString.fromHex("003c00c0007c"));
    }

    private void idAndParameters() {
        var timeout = InferParameter.newBuilder().setInt64Param(5_000_000).build(); // µs until the run has to start
        var note = InferParameter.newBuilder().setStringParam("of the caller's own").build();
        var asked = request(1).setId("picture-1").putParameters("timeout", timeout).putParameters("note", note);
        var answer = stub().modelInfer(asked.build());
        wantEqual("picture-1", answer.getId());
        wantLabels(answer, 9, 1);
    }

    private void requestedOutputs() {
        var answer = stub().modelInfer(request(1).addOutputs(InferRequestedOutputTensor.newBuilder().setName("label")).build());
        wantEqual(1, answer.getOutputsCount());
        wantLabels(answer, 9, 1);
    }

    /** Metadata goes out with the call; what comes back is in the headers, before the answer, and in the trailers, after it. */
    private void headersAndTrailers() {
        Metadata metadata = new Metadata();
        metadata.put(key("x-request-id"), "request-1");
        metadata.put(key("x-server-timing"), "1");
        metadata.put(Metadata.Key.of("note-bin", Metadata.BINARY_BYTE_MARSHALLER), new byte[] {0, (byte) 0xff});
        AtomicReference<Metadata> headers = new AtomicReference<>();
        AtomicReference<Metadata> trailers = new AtomicReference<>();
        stub().withInterceptors(
                        MetadataUtils.newAttachHeadersInterceptor(metadata),
                        MetadataUtils.newCaptureMetadataInterceptor(headers, trailers))
                .modelInfer(request(1).build());
        wantEqual("request-1", headers.get().get(key("x-request-id")));
        wantEqual("2", trailers.get().get(key("x-model-version")));
        want(trailers.get().containsKey(key("server-timing")), trailers);
    }

    private static Metadata.Key<String> key(String name) {
        return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
    }

    /** A request compressed with gzip. Its answer comes compressed as well; the library handles that. */
    private void compressed() {
        wantLabels(stub().withCompression("gzip").modelInfer(request(1000).build()), 9, 1000);
    }

    private void unknownModel() {
        wantError(() -> stub().modelInfer(request(1).setModelName("nobody").build()), Status.Code.NOT_FOUND, "unknown model \"nobody\"");
    }

    private void badShape() {
        var asked = request(1);
        asked.getInputsBuilder(0).setShape(1, 63);
        asked.setRawInputContents(0, asked.getRawInputContents(0).substring(Float.BYTES));
        wantError(() -> stub().modelInfer(asked.build()), Status.Code.INVALID_ARGUMENT, "[1,63] given, [-1,64] wanted");
    }

    /** Asks a model that takes a second or more. */
    private static ModelInferRequest slow() {
        var x = InferInputTensor.newBuilder().setName("x").setDatatype("FP32").addAllShape(List.of(1L, 256L, 256L));
        ByteString zeros = ByteString.copyFrom(new byte[256 * 256 * Float.BYTES]);
        return ModelInferRequest.newBuilder().setModelName("slow").addInputs(x).addRawInputContents(zeros).build();
    }

    /** The deadline of a call goes to the server, which does not begin what would come too late. */
    private void deadline() {
        var hurried = GRPCInferenceServiceGrpc.newBlockingStub(channel).withDeadlineAfter(100, TimeUnit.MILLISECONDS);
        wantError(() -> hurried.modelInfer(slow()), Status.Code.DEADLINE_EXCEEDED, "");
    }

    /** A blocking call ends with the context that it was begun in. */
    private void cancel() throws Exception {
        Context.CancellableContext context = Context.current().withCancellation();
        var later = Executors.newSingleThreadScheduledExecutor();
        try {
            later.schedule(() -> context.cancel(null), 100, TimeUnit.MILLISECONDS);
            wantError(() -> context.run(() -> stub().modelInfer(slow())), Status.Code.CANCELLED, "");
        } finally {
            later.shutdown();
        }
    }

    /** Five requests on one stream, the third of them wrong: it is answered by an error, in its place, and the stream goes on. */
    private void stream() throws Exception {
        List<ModelStreamInferResponse> answers = Collections.synchronizedList(new ArrayList<>());
        CompletableFuture<Void> ended = new CompletableFuture<>();
        var streaming = GRPCInferenceServiceGrpc.newStub(channel).withDeadlineAfter(10, TimeUnit.SECONDS);
        StreamObserver<ModelInferRequest> stream = streaming.modelStreamInfer(new StreamObserver<>() {
            @Override
            public void onNext(ModelStreamInferResponse answer) {
                answers.add(answer);
            }

            @Override
            public void onError(Throwable error) {
                ended.completeExceptionally(error);
            }

            @Override
            public void onCompleted() {
                ended.complete(null);
            }
        });
        for (int i = 0; i < 5; i++) {
            var asked = request(1).setId(Integer.toString(i));
            if (i == 2) {
                asked.getInputsBuilder(0).setName("picture");
            }
            stream.onNext(asked.build());
        }
        stream.onCompleted();
        ended.get(10, TimeUnit.SECONDS);
        wantEqual(5, answers.size());
        for (int i = 0; i < 5; i++) {
            if (i == 2) {
                want(!answers.get(i).getErrorMessage().isEmpty(), answers.get(i));
            } else {
                wantEqual(Integer.toString(i), answers.get(i).getInferResponse().getId());
                wantLabels(answers.get(i).getInferResponse(), 9, 1);
            }
        }
    }
}
