# SPDX-License-Identifier: Apache-2.0
# The CUDA back end. With the tests: its sources built by the host's C++ compiler on the simulator of tests/cudasim
# (needs CUDA's headers, neither nvcc nor a GPU). With EMO_BUILD_CUDA: libemo_cuda.so by nvcc.
option(EMO_BUILD_CUDA "Build libemo_cuda.so (needs nvcc)" OFF)
option(EMO_CUDA_DEVICE_TESTS "Build the test programs of the CUDA back end for a plug-in that is named when they run" OFF)
option(EMO_CUDA_SIM "With the tests, build and test the CUDA back end on the simulator" ON)
set(EMO_CUDA_ROOT "" CACHE PATH "CUDA toolkit; empty: CUDA_HOME, /usr/local/cuda, or where nvcc is")
set(EMO_CUDA_ARCHS "80;90;100;120" CACHE STRING "Architectures that libemo_cuda.so has machine code for")

if(EMO_CUDA_ROOT)
  set(EMO_CUDA_HINTS ${EMO_CUDA_ROOT})
else()
  set(EMO_CUDA_HINTS $ENV{CUDA_HOME} /usr/local/cuda)
  find_program(EMO_NVCC_ON_PATH nvcc)
  mark_as_advanced(EMO_NVCC_ON_PATH)
  if(EMO_NVCC_ON_PATH)
    get_filename_component(EMO_NVCC_DIR ${EMO_NVCC_ON_PATH} REALPATH)
    get_filename_component(EMO_NVCC_DIR ${EMO_NVCC_DIR} DIRECTORY)
    list(APPEND EMO_CUDA_HINTS ${EMO_NVCC_DIR}/..)
  endif()
endif()
# Neither is a cache variable: whoever hides the toolkit for one configuration finds it again in the next.
unset(EMO_CUDA_INCLUDE CACHE)
unset(EMO_NVCC CACHE)
find_path(EMO_CUDA_INCLUDE cuda_runtime.h HINTS ${EMO_CUDA_HINTS} PATH_SUFFIXES include targets/x86_64-linux/include
  NO_DEFAULT_PATH)
find_program(EMO_NVCC nvcc HINTS ${EMO_CUDA_HINTS} PATH_SUFFIXES bin NO_DEFAULT_PATH)
mark_as_advanced(EMO_CUDA_INCLUDE EMO_NVCC)

file(GLOB_RECURSE EMO_CUDA_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/cuda/*.cu ${PROJECT_SOURCE_DIR}/cuda/*.cpp)

# ---- the simulator and the plug-in on it ----

set(EMO_CUDA_SIM_BUILT OFF)
if(EMO_BUILD_TESTS AND EMO_CUDA_SIM)
  if(NOT EMO_CUDA_INCLUDE)
    message(STATUS "CUDA's headers were not found: the CUDA back end is not tested on the simulator")
  elseif(EMO_SANITIZE MATCHES "thread")
    message(STATUS "ThreadSanitizer: the CUDA back end is not tested on the simulator, which takes its hooks itself")
  else()
    set(EMO_CUDA_SIM_BUILT ON)
  endif()
endif()

if(EMO_CUDA_SIM_BUILT)
  enable_language(CXX)
  set(CMAKE_CXX_STANDARD 17)
  set(CMAKE_CXX_STANDARD_REQUIRED ON)
  set_source_files_properties(${EMO_CUDA_SOURCES} PROPERTIES LANGUAGE CXX)

  # Flags of everything that is built on the simulator. -fno-semantic-interposition and hidden names: one program may
  # hold the plug-in and a host's real CUDA.
  add_library(emo_cuda_sim_flags INTERFACE)
  target_compile_definitions(emo_cuda_sim_flags INTERFACE EMO_SIM)
  target_include_directories(emo_cuda_sim_flags INTERFACE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/cuda
    ${PROJECT_SOURCE_DIR}/tests)
  target_include_directories(emo_cuda_sim_flags SYSTEM INTERFACE ${EMO_CUDA_INCLUDE})
  target_compile_options(emo_cuda_sim_flags INTERFACE -g -O2 -fPIC -fvisibility=hidden -ffp-contract=off
    -fno-math-errno -Wall -Wextra -Wshadow -Wno-unknown-pragmas -Wno-unused-parameter)
  if(EMO_WERROR)
    target_compile_options(emo_cuda_sim_flags INTERFACE -Werror)
  endif()
  if(EMO_SANITIZE)
    target_compile_options(emo_cuda_sim_flags INTERFACE -O1)
    target_link_libraries(emo_cuda_sim_flags INTERFACE emo_sanitize)
  endif()
  target_link_libraries(emo_cuda_sim_flags INTERFACE Threads::Threads ${CMAKE_DL_LIBS})

  # plain: as it is. hooked: kernels are compiled for ThreadSanitizer and linked with the simulator's own __tsan_*
  # functions, which check every access of a kernel; that is the main gate.
  set(EMO_CUDA_SIM_KINDS plain)
  if(NOT EMO_SANITIZE)
    list(APPEND EMO_CUDA_SIM_KINDS hooked)
  endif()
  file(GLOB EMO_CUDASIM_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/cudasim/*.cpp)
  list(FILTER EMO_CUDASIM_SOURCES EXCLUDE REGEX "/test_[^/]*$")
  foreach(kind IN LISTS EMO_CUDA_SIM_KINDS)
    set(suffix "")
    if(kind STREQUAL "hooked")
      set(suffix _hooked)
    endif()
    add_library(emo_cudasim${suffix} STATIC ${EMO_CUDASIM_SOURCES})
    target_link_libraries(emo_cudasim${suffix} PUBLIC emo_cuda_sim_flags)
    # What is built on the simulator and holds kernels links this.
    add_library(emo_cuda_kernels${suffix} INTERFACE)
    target_link_libraries(emo_cuda_kernels${suffix} INTERFACE emo_cuda_sim_flags)
    if(kind STREQUAL "hooked")
      target_compile_definitions(emo_cudasim${suffix} PRIVATE CUDASIM_HOOKS)
      target_compile_options(emo_cuda_kernels${suffix} INTERFACE -fsanitize=thread
        "SHELL:--param tsan-instrument-func-entry-exit=0")
      # The compiler driver would add libtsan when it links with -fsanitize=thread; nobody does.
    endif()
    target_link_libraries(emo_cuda_kernels${suffix} INTERFACE emo_cudasim${suffix})
    if(EMO_CUDA_SOURCES)
      add_library(emo_cuda_sim${suffix} MODULE ${EMO_CUDA_SOURCES})
      target_link_libraries(emo_cuda_sim${suffix} PRIVATE emo_cuda_kernels${suffix})
      if(kind STREQUAL "hooked")
        target_compile_definitions(emo_cuda_sim${suffix} PRIVATE EMO_CUDA_SEPARATE)
      endif()
      target_link_options(emo_cuda_sim${suffix} PRIVATE -Wl,-Bsymbolic
        -Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/libemo_cuda_sim.map)
    endif()
  endforeach()
endif()

# After the tests' folder: programs of the simulator's own tests, and parity programs once per build of the plug-in.
function(emo_cuda_tests)
  file(GLOB programs CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/cudasim/test_*.cpp)
  foreach(kind IN LISTS EMO_CUDA_SIM_KINDS)
    set(suffix "")
    if(kind STREQUAL "hooked")
      set(suffix _hooked)
    endif()
    foreach(source IN LISTS programs)
      get_filename_component(name ${source} NAME_WE)
      add_executable(${name}${suffix} ${source})
      target_link_libraries(${name}${suffix} PRIVATE emo_cuda_kernels${suffix} PkgConfig::EMO_CMOCKA)
      target_compile_definitions(${name}${suffix} PRIVATE EMO_THIS_SOURCE="${source}")
      if(kind STREQUAL "hooked")
        target_compile_definitions(${name}${suffix} PRIVATE CUDASIM_HOOKS)
      endif()
      add_test(NAME ${name}${suffix} COMMAND ${name}${suffix})
      set_tests_properties(${name}${suffix} PROPERTIES TIMEOUT 900 LABELS cuda
        ENVIRONMENT "ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0")
    endforeach()
  endforeach()
  if(NOT EMO_CUDA_SOURCES)
    return()
  endif()
  # tests/parity/cuda/test_*.c: programs that load the plug-in named by EMO_CUDA_PLUGIN, as a host would.
  file(GLOB programs CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/parity/cuda/test_*.c)
  foreach(source IN LISTS programs)
    get_filename_component(name ${source} NAME_WE)
    add_executable(${name} ${source})
    target_link_libraries(${name} PRIVATE emo_test_support)
    foreach(kind IN LISTS EMO_CUDA_SIM_KINDS)
      set(suffix "")
      if(kind STREQUAL "hooked")
        set(suffix _hooked)
      endif()
      add_dependencies(${name} emo_cuda_sim${suffix})
      add_test(NAME ${name}${suffix} COMMAND ${name})
      set_tests_properties(${name}${suffix} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 900 LABELS cuda ENVIRONMENT
        "EMO_CUDA_PLUGIN=$<TARGET_FILE:emo_cuda_sim${suffix}>;ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0")
    endforeach()
  endforeach()
  if(EMO_SANITIZE)
    # scripts/test.sh leaves these out under sanitizers, where whole models on the simulated device take minutes: of each
    # one test runs there.
    foreach(slice IN ITEMS test_cuda_replay:a_step_waits_for_nothing test_cuda_expert_cache:sessions_share_the_places)
      string(REPLACE ":" ";" parts ${slice})
      list(GET parts 0 name)
      list(GET parts 1 only)
      add_test(NAME ${name}_slice COMMAND ${name} ${only})
      set_tests_properties(${name}_slice PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 900 LABELS cuda ENVIRONMENT
        "EMO_CUDA_PLUGIN=$<TARGET_FILE:emo_cuda_sim>;ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0")
    endforeach()
  endif()
endfunction()

# ---- the real plug-in ----

if(EMO_BUILD_CUDA)
  if(NOT EMO_NVCC)
    message(FATAL_ERROR "EMO_BUILD_CUDA needs nvcc (EMO_CUDA_ROOT names the toolkit)")
  endif()
  set(flags -std=c++17 -O3 -lineinfo -I${PROJECT_SOURCE_DIR}/include -I${PROJECT_SOURCE_DIR}/cuda
    -Xcompiler=-fPIC,-fvisibility=hidden)
  foreach(arch IN LISTS EMO_CUDA_ARCHS)
    list(APPEND flags -gencode arch=compute_${arch},code=sm_${arch})
  endforeach()
  list(GET EMO_CUDA_ARCHS -1 last)
  list(APPEND flags -gencode arch=compute_${last},code=compute_${last})
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/cuda/*.h ${PROJECT_SOURCE_DIR}/cuda/*.cuh)
  set(objects)
  foreach(source IN LISTS EMO_CUDA_SOURCES)
    file(RELATIVE_PATH name ${PROJECT_SOURCE_DIR}/cuda ${source})
    string(REPLACE "/" "_" name ${name})
    set(object ${PROJECT_BINARY_DIR}/cuda/${name}.o)
    add_custom_command(OUTPUT ${object} COMMAND ${CMAKE_COMMAND} -E make_directory ${PROJECT_BINARY_DIR}/cuda
      COMMAND ${EMO_NVCC} -x cu ${flags} -c ${source} -o ${object}
      DEPENDS ${source} ${headers} COMMENT "nvcc ${name}" VERBATIM)
    list(APPEND objects ${object})
  endforeach()
  set(plugin ${PROJECT_BINARY_DIR}/libemo_cuda.so)
  add_custom_command(OUTPUT ${plugin} COMMAND ${EMO_NVCC} -shared -cudart static ${objects} -o ${plugin}
    -Xlinker --version-script=${PROJECT_SOURCE_DIR}/cmake/libemo_cuda.map -Xlinker --no-undefined -ldl -lpthread -lrt
    DEPENDS ${objects} ${PROJECT_SOURCE_DIR}/cmake/libemo_cuda.map COMMENT "libemo_cuda.so" VERBATIM)
  add_custom_target(emo_cuda ALL DEPENDS ${plugin})
endif()
