# Flags that every target of the project shares, as an interface target.
add_library(emo_flags INTERFACE)
target_compile_definitions(emo_flags INTERFACE _POSIX_C_SOURCE=200809L)
target_compile_options(emo_flags INTERFACE -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow -Wstrict-prototypes
  -Wmissing-prototypes -Wno-unused-parameter -fno-math-errno -ffp-contract=off)
if(EMO_WERROR)
  target_compile_options(emo_flags INTERFACE -Werror)
endif()
# The sanitizers alone, for what is not C or has flags of its own.
add_library(emo_sanitize INTERFACE)
if(EMO_SANITIZE)
  target_compile_options(emo_sanitize INTERFACE -fsanitize=${EMO_SANITIZE} -fno-omit-frame-pointer -g)
  target_link_options(emo_sanitize INTERFACE -fsanitize=${EMO_SANITIZE})
endif()
target_link_libraries(emo_flags INTERFACE emo_sanitize)
