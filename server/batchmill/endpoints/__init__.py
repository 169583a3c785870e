"""What Python answers: cold calls come over the bridge and go to Starlette or to gRPC handlers."""
