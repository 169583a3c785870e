#!/bin/sh
# The stubs in build/inference, by protoc and the plugins of go.mod.
set -eu
cd "$(dirname "$0")"
mkdir -p build/inference
go build -o build/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
package=batchmill-client/build/inference
options="paths=source_relative,Minference.proto=$package,Mmodel_config.proto=$package"
PATH=$PWD/build:$PATH protoc -I ../../protos inference.proto model_config.proto \
    --go_out=build/inference --go_opt="$options" --go-grpc_out=build/inference --go-grpc_opt="$options"
