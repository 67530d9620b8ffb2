mod attempts;
mod parts;
mod state;
