// Inference: tensors as bytes and as numbers, versions, metadata, errors, deadlines, streams.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <thread>

#include "calls.hpp"

using inference::ModelInferRequest;
using inference::ModelInferResponse;

namespace {

// A picture of 8 x 8 pixels, in sixteenths.
const float nine[64] = {
    0, 0, 2,  10, 16, 11, 1,  0,
    0, 0, 13, 13, 10, 16, 8,  0,
    0, 4, 14, 1,  8,  14, 1,  0,
    0, 4, 15, 12, 15, 8,  0,  0,
    0, 0, 6,  7,  14, 5,  0,  0,
    0, 1, 2,  0,  12, 5,  0,  0,
    0, 8, 15, 6,  13, 4,  0,  0,
    0, 0, 5,  11, 16, 3,  0,  0,
};

std::vector<float> pixels(int count) {
    std::vector<float> all;
    for (int i = 0; i < count * 64; i++) all.push_back(nine[i % 64] / 16);
    return all;
}

// Raw contents: little-endian bytes (as this machine has them), one entry for each input, in their order.
ModelInferRequest request(int count = 1) {
    ModelInferRequest asked;
    asked.set_model_name("digits");
    auto* image = asked.add_inputs();
    image->set_name("image");
    image->set_datatype("FP32");
    image->add_shape(count);
    image->add_shape(64);
    const auto given = pixels(count);
    asked.add_raw_input_contents(given.data(), given.size() * sizeof(float));
    return asked;
}

ModelInferResponse infer(Client& client, const ModelInferRequest& asked) {
    Context context;
    ModelInferResponse answer;
    want_ok(client.stub->ModelInfer(&context, asked, &answer));
    return answer;
}

void want_labels(const ModelInferResponse& answer, int64_t digit, size_t count) {
    want(answer.raw_output_contents_size() == answer.outputs_size(), answer.ShortDebugString());
    for (int i = 0; i < answer.outputs_size(); i++) {
        if (answer.outputs(i).name() != "label") continue;
        const std::string& raw = answer.raw_output_contents(i);
        std::vector<int64_t> labels(raw.size() / sizeof(int64_t));
        std::memcpy(labels.data(), raw.data(), labels.size() * sizeof(int64_t));
        want(labels == std::vector<int64_t>(count, digit), std::to_string(labels.size()) + " labels, not all as wanted");
        return;
    }
    want(false, "no output \"label\"");
}

void infer_raw(Client& client) { want_labels(infer(client, request(3)), 9, 3); }

// Typed contents: numbers in a field for their datatype. The answer is typed where the parameter asks for that, raw otherwise.
void infer_typed(Client& client) {
    auto typed = request();
    typed.clear_raw_input_contents();
    for (float pixel : pixels(1)) typed.mutable_inputs(0)->mutable_contents()->add_fp32_contents(pixel);
    (*typed.mutable_parameters())["binary_data_output"].set_bool_param(false);
    const auto answer = infer(client, typed);
    const auto label = std::find_if(answer.outputs().begin(), answer.outputs().end(), [](const auto& one) { return one.name() == "label"; });
    want(label != answer.outputs().end() && label->contents().int64_contents_size() == 1 && label->contents().int64_contents(0) == 9,
         answer.ShortDebugString());
}

// The first version takes this nine for an eight.
void version(Client& client) {
    auto first = request();
    first.set_model_version("1");
    const auto answer = infer(client, first);
    want(answer.model_version() == "1", "version " + answer.model_version());
    want_labels(answer, 8, 1);
}

// Of a model that answers its input "x" as its output "y".
void echo(Client& client, const std::string& model, const std::string& datatype, const std::string& raw) {
    ModelInferRequest asked;
    asked.set_model_name(model);
    auto* x = asked.add_inputs();
    x->set_name("x");
    x->set_datatype(datatype);
    x->add_shape(1);
    x->add_shape(3);
    asked.add_raw_input_contents(raw);
    const auto answer = infer(client, asked);
    want(answer.outputs_size() == 1 && answer.raw_output_contents_size() == 1, answer.ShortDebugString());
    const auto& y = answer.outputs(0);
    const bool shape = y.shape_size() == 2 && y.shape(0) == 1 && y.shape(1) == 3;
    want(y.name() == "y" && y.datatype() == datatype && shape && answer.raw_output_contents(0) == raw, answer.ShortDebugString());
}

// Each element behind its length, a little-endian uint32. Any bytes come back as they were.
void bytes(Client& client) {
    std::string raw;
    for (const std::string& element : {std::string("nine"), std::string(), std::string("\x00\xff", 2)}) {
        const uint32_t length = element.size();
        raw.append(reinterpret_cast<const char*>(&length), sizeof(length)).append(element);
    }
    echo(client, "identity_bytes", "BYTES", raw);
}

// FP16 travels raw alone: 1, -2 and infinity.
void fp16(Client& client) { echo(client, "identity_fp16", "FP16", std::string("\x00\x3c\x00\xc0\x00\x7c", 6)); }

void id_and_parameters(Client& client) {
    auto asked = request();
    asked.set_id("picture-1");
    (*asked.mutable_parameters())["timeout"].set_int64_param(5000000);  // µs until the run has to start
    (*asked.mutable_parameters())["note"].set_string_param("of the caller's own");
    const auto answer = infer(client, asked);
    want(answer.id() == "picture-1", "id " + answer.id());
    want_labels(answer, 9, 1);
}

void requested_outputs(Client& client) {
    auto asked = request();
    asked.add_outputs()->set_name("label");
    const auto answer = infer(client, asked);
    want(answer.outputs_size() == 1, answer.ShortDebugString());
    want_labels(answer, 9, 1);
}

// Metadata goes out with the context; what comes back is in the headers, before the answer, and in the trailers, after it.
void headers_and_trailers(Client& client) {
    Context context;
    ModelInferResponse answer;
    context.AddMetadata("x-request-id", "request-1");
    context.AddMetadata("x-server-timing", "1");
    context.AddMetadata("note-bin", std::string("\x00\xff", 2));
    want_ok(client.stub->ModelInfer(&context, request(), &answer));
    const auto& headers = context.GetServerInitialMetadata();
    const auto& trailers = context.GetServerTrailingMetadata();
    const auto id = headers.find("x-request-id");
    const auto version = trailers.find("x-model-version");
    want(id != headers.end() && id->second == "request-1", "headers without the request id");
    want(version != trailers.end() && version->second == "2" && trailers.count("server-timing") == 1, "trailers without version or times");
}

// A request compressed with gzip. Its answer comes compressed as well; the library handles that.
void compressed(Client& client) {
    Context context;
    ModelInferResponse answer;
    context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
    want_ok(client.stub->ModelInfer(&context, request(1000), &answer));
    want_labels(answer, 9, 1000);
}

void unknown_model(Client& client) {
    Context context;
    ModelInferResponse answer;
    auto asked = request();
    asked.set_model_name("nobody");
    want_error(client.stub->ModelInfer(&context, asked, &answer), grpc::StatusCode::NOT_FOUND, "unknown model \"nobody\"");
}

void bad_shape(Client& client) {
    Context context;
    ModelInferResponse answer;
    auto asked = request();
    asked.mutable_inputs(0)->set_shape(1, 63);
    asked.mutable_raw_input_contents(0)->resize(63 * sizeof(float));
    want_error(client.stub->ModelInfer(&context, asked, &answer), grpc::StatusCode::INVALID_ARGUMENT, "[1,63] given, [-1,64] wanted");
}

// Of a model that takes a second or more.
grpc::Status slowly(Client& client, Context& context) {
    ModelInferRequest asked;
    ModelInferResponse answer;
    asked.set_model_name("slow");
    auto* x = asked.add_inputs();
    x->set_name("x");
    x->set_datatype("FP32");
    for (int size : {1, 256, 256}) x->add_shape(size);
    asked.add_raw_input_contents(std::string(256 * 256 * sizeof(float), '\0'));
    return client.stub->ModelInfer(&context, asked, &answer);
}

// The deadline of a context goes to the server, which does not begin what would come too late.
void deadline(Client& client) {
    Context context(std::chrono::milliseconds(100));
    want_error(slowly(client, context), grpc::StatusCode::DEADLINE_EXCEEDED, "");
}

void cancel(Client& client) {
    Context context;
    std::thread later([&context] {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        context.TryCancel();
    });
    const auto status = slowly(client, context);
    later.join();
    want_error(status, grpc::StatusCode::CANCELLED, "");
}

// Five requests on one stream, the third of them wrong: it is answered by an error, in its place, and the stream goes on.
void stream(Client& client) {
    Context context;
    const auto stream = client.stub->ModelStreamInfer(&context);
    for (int i = 0; i < 5; i++) {
        auto asked = request();
        asked.set_id(std::to_string(i));
        if (i == 2) asked.mutable_inputs(0)->set_name("picture");
        want(stream->Write(asked), "the stream has ended");
    }
    stream->WritesDone();
    inference::ModelStreamInferResponse answer;
    for (int i = 0; i < 5; i++) {
        want(stream->Read(&answer), std::to_string(i) + " answers");
        want((i == 2) == !answer.error_message().empty(), answer.ShortDebugString());
        if (i == 2) continue;
        want(answer.infer_response().id() == std::to_string(i), answer.ShortDebugString());
        want_labels(answer.infer_response(), 9, 1);
    }
    want(!stream->Read(&answer), "more answers than requests");
    want_ok(stream->Finish());
}

}  // namespace

const std::vector<Call> inference_calls = {
    {"infer-raw", infer_raw, ""},
    {"infer-typed", infer_typed, ""},
    {"version", version, ""},
    {"bytes", bytes, "identity_bytes"},
    {"fp16", fp16, "identity_fp16"},
    {"id-parameters", id_and_parameters, ""},
    {"outputs", requested_outputs, ""},
    {"metadata", headers_and_trailers, ""},
    {"compressed-request", compressed, ""},
    {"compressed-response", compressed, ""},
    {"unknown-model", unknown_model, ""},
    {"bad-shape", bad_shape, ""},
    {"deadline", deadline, "slow"},
    {"cancel", cancel, "slow"},
    {"stream", stream, ""},
};
