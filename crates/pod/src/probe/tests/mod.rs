mod attempts;
mod grpc;
mod parts;
mod state;
