#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The portfile of docs/packaging.md, run by CMake with what vcpkg's helpers do to a port: options must be ones the build
# knows, and find_package must still work once the CMake package was moved from lib/cmake to share and its paths rewritten.
# What is installed is this build; compiling it twice more would show nothing.
# usage: test_ports.sh SOURCE_DIR BUILD_DIR
set -eu
source=$(realpath "$1")
. "$(dirname "${BASH_SOURCE[0]}")/../support/library.sh"
need_plain_library "$2"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "FAILED: $*"
    exit 1
}
cat >"$work/port.cmake" <<EOT
cmake_minimum_required(VERSION 3.22)
set(SOURCE_PATH "$source")
set(CURRENT_PACKAGES_DIR "$work/packages")
set(VCPKG_LIBRARY_LINKAGE dynamic)
function(run)
  execute_process(COMMAND \${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE said ERROR_VARIABLE said)
  if(NOT status EQUAL 0 OR said MATCHES "not used by the project")
    message(FATAL_ERROR "\${ARGN}: \${said}")
  endif()
endfunction()
function(vcpkg_cmake_configure)
  cmake_parse_arguments(arg "" "SOURCE_PATH" "OPTIONS" \${ARGN})
  run(\${CMAKE_COMMAND} -S \${arg_SOURCE_PATH} -B "$work/configured" -DCMAKE_INSTALL_PREFIX=\${CURRENT_PACKAGES_DIR}
      -DCMAKE_INSTALL_LIBDIR:STRING=lib \${arg_OPTIONS})
endfunction()
function(vcpkg_cmake_install)
  run(\${CMAKE_COMMAND} --install "$build" --prefix \${CURRENT_PACKAGES_DIR})
endfunction()
function(vcpkg_cmake_config_fixup)
  cmake_parse_arguments(arg "" "PACKAGE_NAME;CONFIG_PATH" "" \${ARGN})
  set(to "\${CURRENT_PACKAGES_DIR}/share/\${arg_PACKAGE_NAME}")
  file(COPY "\${CURRENT_PACKAGES_DIR}/\${arg_CONFIG_PATH}/" DESTINATION "\${to}")
  file(REMOVE_RECURSE "\${CURRENT_PACKAGES_DIR}/lib/cmake")
  file(GLOB files "\${to}/*.cmake")
  set(up [[get_filename_component(_IMPORT_PREFIX "\${_IMPORT_PREFIX}" PATH)]])
  foreach(file IN LISTS files)
    file(READ "\${file}" text)
    string(REPLACE "\${up}\n\${up}\n\${up}" "\${up}\n\${up}" text "\${text}")
    string(REPLACE [[\${CMAKE_CURRENT_LIST_DIR}/../../../]] [[\${CMAKE_CURRENT_LIST_DIR}/../../]] text "\${text}")
    file(WRITE "\${file}" "\${text}")
  endforeach()
endfunction()
function(vcpkg_fixup_pkgconfig)
endfunction()
function(vcpkg_install_copyright)
  cmake_parse_arguments(arg "" "" "FILE_LIST" \${ARGN})
  file(COPY \${arg_FILE_LIST} DESTINATION "\${CURRENT_PACKAGES_DIR}/share/emo")
endfunction()
EOT
awk '/^```cmake/ { inside = 1; next } /^```/ { inside = 0 } inside' "$source/docs/packaging.md" >"$work/block"
[ -s "$work/block" ] || fail "docs/packaging.md has no portfile"
cat "$work/block" >>"$work/port.cmake"
cmake -P "$work/port.cmake" >"$work/log" 2>&1 || { cat "$work/log"; fail "the portfile"; }
# The program is left out of the port.
rm -rf "$work/packages/bin" "$work"/packages/share/emo/emo-cli*.cmake
grep -qE 'EMO_BUILD_SHARED:BOOL=(ON|1|TRUE)' "$work/configured/CMakeCache.txt" || fail "dynamic linkage without the shared library"
! grep -rlF "$work" "$work/packages/share" "$work/packages/lib/pkgconfig" || fail "the port remembers where it was built"
mv "$work/packages" "$work/installed"
cmake -S "$source/tests/install" -B "$work/consumer" -DCMAKE_PREFIX_PATH="$work/installed" >"$work/log" 2>&1 ||
    { cat "$work/log"; fail "find_package"; }
cmake --build "$work/consumer" --target c_emo c_static >"$work/log" 2>&1 || { cat "$work/log"; fail "a consumer"; }
for program in c_emo c_static; do
    ldd "$work/consumer/$program" | grep -q "libemo.so.0 => $work/installed/lib/" || [ $program = c_static ] ||
        fail "$program takes another libemo"
    [ "$("$work/consumer/$program")" = ok ] || fail "$program does not run"
done
echo "the port of docs/packaging.md: configured, installed, moved and used"
