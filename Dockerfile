# The image is one static binary. Any Rust image with a C linker builds it. The default is Debian's (glibc);
# --build-arg BUILDER=docker.io/library/rust:1-alpine does the same with musl.
#
# For another processor, --platform linux/arm64 (or linux/amd64) compiles on this machine's own, without an emulator. That
# needs Debian's cross compiler, which is installed, and the target's standard library.
ARG BUILDER=docker.io/library/rust:1-slim

FROM --platform=$BUILDPLATFORM ${BUILDER} AS build
# The builder sets it, from --platform.
ARG TARGETARCH
WORKDIR /build
COPY . .
# The cache keeps dependencies between builds. Cargo compares the files' times, and a checkout may be older than the
# cache: hence the touch. Without --target, the flags would break procedural macros.
RUN --mount=type=cache,target=/cache \
    set -eu; \
    export CARGO_HOME=/cache/cargo CARGO_TARGET_DIR=/cache/target RUSTFLAGS='-C target-feature=+crt-static'; \
    host=$(rustc -vV | sed -n 's/^host: //p'); \
    case "$TARGETARCH" in amd64) cpu=x86_64 ;; arm64) cpu=aarch64 ;; *) cpu=${host%%-*} ;; esac; \
    target=$cpu-${host#*-}; \
    if [ "$target" != "$host" ]; then \
        linker=$cpu-linux-gnu-gcc; \
        command -v "$linker" >/dev/null || { \
            apt-get update -qq; \
            apt-get install -qq --yes --no-install-recommends "gcc-$(echo "$cpu" | tr _ -)-linux-gnu" "libc6-dev-$TARGETARCH-cross"; \
        }; \
        ! command -v rustup >/dev/null || rustup target add "$target"; \
        # Cargo's variable for the linker of a target has the target's name in capitals.
        export "CARGO_TARGET_$(echo "$target" | tr a-z- A-Z_)_LINKER=$linker"; \
    fi; \
    find src -type f -exec touch {} +; \
    cargo build --release --locked --bin arc-relay --target "$target"; \
    mkdir /out; \
    cp "/cache/target/$target/release/arc-relay" /out/; \
    # The binary has to run where there is nothing else, so it has to be static. One of another processor is not run: it is
    # static if it names no loader.
    if [ "$target" = "$host" ]; then chroot /out /arc-relay --version; else ! grep -q '/lib/ld-' /out/arc-relay; fi

FROM scratch
COPY --from=build /out/arc-relay /arc-relay
# Numeric, as there is no /etc/passwd.
USER 65532:65532
EXPOSE 8765
# Of the OCI's image format it is no part: buildah needs --format docker for it.
HEALTHCHECK --interval=30s --timeout=5s CMD ["/arc-relay", "health"]
ENTRYPOINT ["/arc-relay"]
CMD ["start"]
