# To be sourced by the checks in the parent directory that build images, after checks.bash. It needs no Docker and no
# registry.

need buildah buildah
need cc gcc libc6-dev
command -v rustc >/dev/null || { echo "FAIL no Rust toolchain found"; exit 1; }

# Keeps buildah's storage and caches apart from the machine's own.
export TMPDIR=$work/tmp
mkdir "$TMPDIR"
b() {
    buildah --storage-driver vfs --root "$work/storage" --runroot "$work/run" "$@"
}
container=
clean_up_more() {
    [ -z "$container" ] || b rm "$container" >/dev/null 2>&1 || true
}

# builder [OPTION...]: makes the builder image, because no image can be pulled. It is a skeleton into which this
# machine's system and toolchain are mounted. A copy of them would be 1.5 GB per run and prove nothing more. The options are
# those of buildah config.
builder() {
    local frame mounted directory
    frame=$(b from scratch)
    mounted=$(b mount "$frame")
    mkdir -p "$mounted"/{etc/alternatives,etc/ssl,rust,tmp,usr}
    chmod 1777 "$mounted/tmp"
    for directory in bin lib lib64 sbin; do ln -s "usr/$directory" "$mounted/$directory"; done
    b config --env PATH=/rust/bin:/usr/sbin:/usr/bin "$@" "$frame"
    b commit -q --rm "$frame" localhost/builder
}

# build_image [OPTION...]: builds the image from the Dockerfile.
build_image() {
    b bud --format docker --isolation chroot --pull-never --build-arg BUILDER=localhost/builder \
        -v /usr:/usr:ro -v /etc/alternatives:/etc/alternatives:ro -v /etc/ssl:/etc/ssl:ro \
        -v "$(rustc --print sysroot):/rust:ro" "$@" -t localhost/arc-relay .
}

# config FORMAT: a part of the image's configuration.
config() {
    b inspect --type image --format "{{with .Docker.Config}}$1{{end}}" localhost/arc-relay
}

# unpack_image DIRECTORY: makes the directory, with the files of the image.
unpack_image() {
    container=$(b from localhost/arc-relay)
    mkdir "$1"
    cp -a "$(b mount "$container")/." "$1"
}

is() {
    [ "$1" = "$2" ] || { echo "'$1' instead of '$2'"; false; }
}
