// A client of the v2 protocol: one function a call. `client ADDRESS [CALL...]` prints a line for each: its name, and ok or what went wrong.
#include <algorithm>
#include <iostream>

#include "calls.hpp"
#include "health.grpc.pb.h"
#include "reflection.grpc.pb.h"

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using grpc::reflection::v1alpha::ServerReflection;
using grpc::reflection::v1alpha::ServerReflectionRequest;
using grpc::reflection::v1alpha::ServerReflectionResponse;

namespace {

// Makes one unary call with a context of its own; throws what went wrong.
template <typename Stub, typename Method, typename Request, typename Answer>
void ask(Stub& stub, Method method, const Request& request, Answer& answer) {
    Context context;
    want_ok((stub.*method)(&context, request, &answer));
}

using Service = inference::GRPCInferenceService::Stub;

void live(Client& client) {
    inference::ServerLiveResponse answer;
    ask(*client.stub, &Service::ServerLive, inference::ServerLiveRequest(), answer);
    want(answer.live(), answer.ShortDebugString());
}

void ready(Client& client) {
    inference::ServerReadyResponse answer;
    ask(*client.stub, &Service::ServerReady, inference::ServerReadyRequest(), answer);
    want(answer.ready(), answer.ShortDebugString());
}

bool is_ready(Client& client, const std::string& model) {
    inference::ModelReadyRequest request;
    inference::ModelReadyResponse answer;
    request.set_name(model);
    ask(*client.stub, &Service::ModelReady, request, answer);
    return answer.ready();
}

void model_ready(Client& client) { want(is_ready(client, "digits"), "not ready"); }

void server_metadata(Client& client) {
    inference::ServerMetadataResponse answer;
    ask(*client.stub, &Service::ServerMetadata, inference::ServerMetadataRequest(), answer);
    want(answer.name() == "batchmill" && !answer.version().empty(), answer.ShortDebugString());
}

void model_metadata(Client& client) {
    inference::ModelMetadataRequest request;
    inference::ModelMetadataResponse answer;
    request.set_name("digits");
    ask(*client.stub, &Service::ModelMetadata, request, answer);
    want(answer.versions_size() == 2 && answer.inputs_size() == 1, answer.ShortDebugString());
    const auto& image = answer.inputs(0);
    const bool shape = image.shape_size() == 2 && image.shape(0) == -1 && image.shape(1) == 64;
    want(image.name() == "image" && image.datatype() == "FP32" && shape, answer.ShortDebugString());
}

void model_config(Client& client) {
    inference::ModelConfigRequest request;
    inference::ModelConfigResponse answer;
    request.set_name("digits");
    ask(*client.stub, &Service::ModelConfig, request, answer);
    want(answer.config().name() == "digits" && answer.config().max_batch_size() > 0, answer.ShortDebugString());
}

void statistics(Client& client) {
    inference::ModelStatisticsRequest request;
    inference::ModelStatisticsResponse answer;
    request.set_name("digits");
    request.set_version("2");
    ask(*client.stub, &Service::ModelStatistics, request, answer);
    want(answer.model_stats_size() == 1 && answer.model_stats(0).version() == "2" && answer.model_stats(0).has_inference_stats(),
         answer.ShortDebugString());
}

void repository_index(Client& client) {
    inference::RepositoryIndexRequest request;
    inference::RepositoryIndexResponse answer;
    request.set_ready(true);
    ask(*client.stub, &Service::RepositoryIndex, request, answer);
    const auto count = std::count_if(answer.models().begin(), answer.models().end(),
                                     [](const auto& model) { return model.name() == "digits" && model.state() == "READY"; });
    want(count == 2, answer.ShortDebugString());
}

void load_unload(Client& client) {
    inference::RepositoryModelUnloadRequest unload;
    inference::RepositoryModelUnloadResponse unloaded;
    unload.set_model_name("spare");
    ask(*client.stub, &Service::RepositoryModelUnload, unload, unloaded);
    want(!is_ready(client, "spare"), "ready after unload");
    inference::RepositoryModelLoadRequest load;
    inference::RepositoryModelLoadResponse loaded;
    load.set_model_name("spare");
    ask(*client.stub, &Service::RepositoryModelLoad, load, loaded);
    want(is_ready(client, "spare"), "not ready after load");
}

void health_check(Client& client) {
    const auto health = Health::NewStub(client.channel);
    HealthCheckRequest request;
    HealthCheckResponse answer;
    for (const char* service : {"", "digits"}) {
        request.set_service(service);
        ask(*health, &Health::Stub::Check, request, answer);
        want(answer.status() == HealthCheckResponse::SERVING, answer.ShortDebugString());
    }
    request.set_service("nobody");
    Context context;
    want_error(health->Check(&context, request, &answer), grpc::StatusCode::NOT_FOUND, "");
}

void health_watch(Client& client) {
    Context context;
    HealthCheckResponse answer;
    const auto watch = Health::NewStub(client.channel)->Watch(&context, HealthCheckRequest());
    want(watch->Read(&answer), "no status");
    want(answer.status() == HealthCheckResponse::SERVING, answer.ShortDebugString());
    context.TryCancel();  // a watch never ends by itself
    want(watch->Finish().error_code() == grpc::StatusCode::CANCELLED, "another end than that of a cancelled call");
}

void list_services(Client& client) {
    Context context;
    ServerReflectionRequest request;
    ServerReflectionResponse answer;
    request.set_list_services("");
    const auto asked = ServerReflection::NewStub(client.channel)->ServerReflectionInfo(&context);
    want(asked->Write(request) && asked->WritesDone() && asked->Read(&answer), "no answer");
    const auto& services = answer.list_services_response().service();
    want(std::any_of(services.begin(), services.end(), [](const auto& one) { return one.name() == "inference.GRPCInferenceService"; }),
         answer.ShortDebugString());
    want_ok(asked->Finish());
}

const std::vector<Call> server_calls = {
    {"live", live, ""},
    {"ready", ready, ""},
    {"model-ready", model_ready, ""},
    {"server-metadata", server_metadata, ""},
    {"model-metadata", model_metadata, ""},
    {"model-config", model_config, ""},
    {"statistics", statistics, ""},
    {"repository-index", repository_index, ""},
    {"load-unload", load_unload, "spare"},
    {"health-check", health_check, ""},
    {"health-watch", health_watch, ""},
    {"reflection", list_services, ""},
};

std::string outcome(Client& client, const Call& call) {
    if (!call.model.empty()) {
        inference::ModelReadyRequest request;
        inference::ModelReadyResponse answer;
        request.set_name(call.model);
        Context context;
        if (client.stub->ModelReady(&context, request, &answer).error_code() == grpc::StatusCode::NOT_FOUND)
            return "skipped: the server has no model \"" + call.model + "\"";
    }
    try {
        call.make(client);
        return "ok";
    } catch (const std::exception& error) {
        std::string text = error.what();
        std::replace(text.begin(), text.end(), '\n', ' ');
        return "failed: " + text;
    }
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 2) {
        std::cerr << "usage: client ADDRESS [CALL...]\n";
        return 2;
    }
    const std::vector<std::string> wanted(arguments + 2, arguments + count);
    Client client;
    client.channel = grpc::CreateChannel(arguments[1], grpc::InsecureChannelCredentials());
    client.stub = inference::GRPCInferenceService::NewStub(client.channel);
    bool failed = false;
    for (const auto* calls : {&server_calls, &inference_calls}) {
        for (const auto& call : *calls) {
            if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), call.name) == wanted.end()) continue;
            const auto result = outcome(client, call);
            failed = failed || result.rfind("failed", 0) == 0;
            std::cout << call.name << "\t" << result << std::endl;
        }
    }
    return failed ? 1 : 0;
}
