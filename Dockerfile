# The image is one static binary. Any Rust image with a C linker builds it, for its own target. The default is Debian's
# (glibc); --build-arg BUILDER=docker.io/library/rust:1-alpine does the same with musl.
ARG BUILDER=docker.io/library/rust:1-slim

FROM ${BUILDER} AS build
WORKDIR /build
COPY . .
# The cache keeps dependencies between builds. Cargo compares the files' times, and a checkout may be older than the
# cache: hence the touch. Without --target, the flags would break procedural macros.
RUN --mount=type=cache,target=/cache \
    set -eu; \
    export CARGO_HOME=/cache/cargo CARGO_TARGET_DIR=/cache/target RUSTFLAGS='-C target-feature=+crt-static'; \
    target=$(rustc -vV | sed -n 's/^host: //p'); \
    find src -type f -exec touch {} +; \
    cargo build --release --locked --bin arc-relay --target "$target"; \
    mkdir /out; \
    cp "/cache/target/$target/release/arc-relay" /out/
# The binary has to run where there is nothing else, so it has to be static.
RUN chroot /out /arc-relay --version

FROM scratch
COPY --from=build /out/arc-relay /arc-relay
# Numeric, as there is no /etc/passwd.
USER 65532:65532
EXPOSE 8765
# Of the OCI's image format it is no part: buildah needs --format docker for it.
HEALTHCHECK --interval=30s --timeout=5s CMD ["/arc-relay", "health"]
# ARC_RELAY_HOST has to be an address here, as the default 0.0.0.0 is: a static glibc cannot look up names.
ENTRYPOINT ["/arc-relay"]
CMD ["start"]
