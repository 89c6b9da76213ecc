# SPDX-License-Identifier: Apache-2.0
# For checks of the built library; sourced by bash.

# need_library BUILD_DIR: sets `build` and `library`, absolute; ends the check where the build has no shared library.
need_library() {
    [ -e "$1/libemo.so" ] || { echo "no shared library in this build"; exit 77; }
    build=$(realpath "$1")
    library=$(realpath "$1/libemo.so")
}

# need_plain_library BUILD_DIR: the same, and ends it in a sanitizer build, where programs built without do not load it.
need_plain_library() {
    need_library "$1"
    if nm -D "$library" | grep -qE '__(asan|tsan|ubsan)_'; then
        echo "a sanitizer build"
        exit 77
    fi
}
