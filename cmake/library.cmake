# libemo, shared and static, from one set of objects.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(EMO_PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(EMO_ZLIB REQUIRED IMPORTED_TARGET zlib)
pkg_check_modules(EMO_UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)

file(GLOB_RECURSE EMO_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/*.c)

# A file's name says which instruction set it may use; the CPU back end enters it only where the machine has that set.
set(EMO_AVX2_FLAGS "-mavx2 -mfma -mf16c")
set(EMO_AVX512_FLAGS "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=512")
# Without optimisation gcc's intrinsics are macros that convert their all-ones masks in the file that uses them.
string(APPEND EMO_AVX512_FLAGS " -Wno-sign-conversion")
set(EMO_AMX_FLAGS "${EMO_AVX512_FLAGS} -mavx512bf16 -mavx512vnni -mamx-tile -mamx-bf16 -mamx-int8")
string(TOLOWER "${CMAKE_SYSTEM_PROCESSOR}" EMO_PROCESSOR)
foreach(source IN LISTS EMO_SOURCES)
  if(source MATCHES "_avx2\\.c$")
    set(flags "${EMO_AVX2_FLAGS}")
    set(wanted "x86_64|amd64")
  elseif(source MATCHES "_avx512\\.c$")
    set(flags "${EMO_AVX512_FLAGS}")
    set(wanted "x86_64|amd64")
  elseif(source MATCHES "_avx512bf16\\.c$")
    set(flags "${EMO_AVX512_FLAGS} -mavx512bf16")
    set(wanted "x86_64|amd64")
  elseif(source MATCHES "_vnni\\.c$")
    set(flags "${EMO_AVX512_FLAGS} -mavx512vnni")
    set(wanted "x86_64|amd64")
  elseif(source MATCHES "_amx(_[a-z]+)?\\.c$")
    set(flags "${EMO_AMX_FLAGS}")
    if(EMO_SANITIZE AND CMAKE_C_COMPILER_ID MATCHES "Clang")
      string(APPEND flags " -fno-sanitize=all") # clang 14 takes more than ten minutes for these files otherwise
    endif()
    set(wanted "x86_64|amd64")
  elseif(source MATCHES "_neondot\\.c$")
    set(flags "-march=armv8.2-a+dotprod")
    set(wanted "aarch64|arm64")
  elseif(source MATCHES "_neonbf16\\.c$")
    set(flags "-march=armv8.2-a+bf16")
    set(wanted "aarch64|arm64")
  elseif(source MATCHES "_neon\\.c$")
    set(flags "")
    set(wanted "aarch64|arm64")
  else()
    continue()
  endif()
  if(EMO_PROCESSOR MATCHES "${wanted}")
    set_source_files_properties(${source} PROPERTIES COMPILE_FLAGS "${flags}")
  else()
    list(REMOVE_ITEM EMO_SOURCES ${source})
  endif()
endforeach()

add_library(emo_objects OBJECT ${EMO_SOURCES})
target_compile_definitions(emo_objects PRIVATE EMO_BUILD)
target_include_directories(emo_objects PUBLIC ${PROJECT_SOURCE_DIR}/include PRIVATE ${PROJECT_SOURCE_DIR}/src)
target_link_libraries(emo_objects PRIVATE emo_flags PkgConfig::EMO_PCRE2 PkgConfig::EMO_ZLIB
  PkgConfig::EMO_UTF8PROC Threads::Threads)
set_target_properties(emo_objects PROPERTIES POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden)

set(EMO_PRIVATE_LIBS PkgConfig::EMO_PCRE2 PkgConfig::EMO_ZLIB PkgConfig::EMO_UTF8PROC
  Threads::Threads m ${CMAKE_DL_LIBS})

add_library(emo_static STATIC $<TARGET_OBJECTS:emo_objects>)
set_target_properties(emo_static PROPERTIES OUTPUT_NAME emo EXPORT_NAME emo_static)
target_include_directories(emo_static PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(emo_static PRIVATE ${EMO_PRIVATE_LIBS})

if(EMO_BUILD_SHARED)
  add_library(emo SHARED $<TARGET_OBJECTS:emo_objects>)
  set_target_properties(emo PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
    LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/libemo.map)
  # -Bsymbolic: the library calls itself, also beside another build of it in the same process.
  target_link_options(emo PRIVATE -Wl,-Bsymbolic -Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/libemo.map -Wl,--no-undefined
    -Wl,-z,relro -Wl,-z,now)
  if(EMO_SANITIZE)
    target_link_options(emo PRIVATE -fsanitize=${EMO_SANITIZE} -Wl,--undefined-version)
  endif()
  target_include_directories(emo PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(emo PRIVATE ${EMO_PRIVATE_LIBS})
endif()
