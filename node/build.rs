//! What an addon of Node is linked with.

fn main() {
    napi_build::setup();
}
