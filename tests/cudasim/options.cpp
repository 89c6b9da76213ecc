/* SPDX-License-Identifier: Apache-2.0 */
/* Options from the environment, findings, error state, and the table that test programs steer the simulator with. */
#include "cudasim/control.h"
#include "cudasim/internal.h"

#include <dlfcn.h>
#include <map>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

namespace cudasim {

static unsigned long long number(const char *name, unsigned long long otherwise) {
    const char *text = getenv(name);
    return text != nullptr && *text != '\0' ? strtoull(text, nullptr, 10) : otherwise;
}

Options options = {
    (uint32_t)number("CUDASIM_SEED", 0),
    (int)number("CUDASIM_STREAMS", 1),
    (int)number("CUDASIM_ASYNC", 1),
    (size_t)number("CUDASIM_MEMORY", 4ull << 30),
    (size_t)number("CUDASIM_SHARED", 99 << 10), /* what every architecture from sm_80 on grants (sm_86, 89, 120) */
    0,
    0,
    (int)number("CUDASIM_SMS", 4),
    8,
    0,
    Blas::there,
};
std::recursive_mutex lock;
cudaError_t last_error, sticky_error;
static std::string findings;
static int count;

/* A program with findings nobody took fails, whatever its tests say. */
static void at_end() {
    if (sticky_error == cudaSuccess)
        memory_check_red_zones();
    if (count == 0)
        return;
    fprintf(stderr, "cudasim: %d findings\n", count);
    fflush(stdout);
    _exit(97);
}

void watch_end() {
    static bool registered = false;
    if (!registered)
        atexit(at_end);
    registered = true;
}

void finding(const char *format, ...) {
    watch_end();
    va_list list;
    va_start(list, format);
    char text[2000];
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    count++;
    findings += text;
    findings += '\n';
    fflush(stdout);
    fprintf(stderr, "cudasim: %s\n", text);
}

cudaError_t fail(cudaError_t error) {
    if (error != cudaSuccess)
        last_error = error;
    return error;
}

extern "C" const char __ehdr_start __attribute__((visibility("hidden")));
uint64_t relative(const void *pc) { return (uint64_t)((const char *)pc - &__ehdr_start); }

/* "file.cu:12 (function)" by addr2line, or the address. */
std::string code_line(uint64_t pc) {
    static std::map<uint64_t, std::string> known;
    auto [at, fresh] = known.try_emplace(pc);
    if (!fresh)
        return at->second;
    Dl_info info;
    char command[1200], text[600] = "", place[600] = "";
    if (dladdr(&__ehdr_start, &info) != 0 && info.dli_fname != nullptr) {
        snprintf(command, sizeof command, "addr2line -Cfie '%s' 0x%llx 2>/dev/null",
                 access(info.dli_fname, R_OK) == 0 ? info.dli_fname : "/proc/self/exe", (unsigned long long)(pc - 1));
        FILE *f = popen(command, "r");
        if (f != nullptr) {
            if (fgets(text, sizeof text, f) == nullptr || fgets(place, sizeof place, f) == nullptr)
                text[0] = place[0] = '\0';
            /* Inlined helpers of a header say less than the kernel they are in. */
            char outer[600], outer_place[600];
            while (strstr(place, ".h:") != nullptr && fgets(outer, sizeof outer, f) != nullptr &&
                   fgets(outer_place, sizeof outer_place, f) != nullptr) {
                memcpy(text, outer, sizeof text);
                memcpy(place, outer_place, sizeof place);
            }
            while (fgetc(f) != EOF) {
            }
            pclose(f);
        }
    }
    text[strcspn(text, "\n")] = '\0';
    place[strcspn(place, " \n")] = '\0';
    char *name = strncmp(text, "void ", 5) == 0 ? text + 5 : text;
    name[strcspn(name, "<(")] = '\0';
    const char *slash = strrchr(place, '/');
    std::string result = place[0] != '\0' && place[0] != '?'
                             ? std::string(slash != nullptr ? slash + 1 : place) + " (" + name + ")"
                             : "pc " + std::to_string(pc);
    return at->second = result;
}

/* ---- control.h ---- */

static void set_seed(uint32_t seed) { options.seed = seed; }
static void set_streams(int mode) { options.streams = mode; }
static void set_memory(size_t bytes) { options.memory = bytes; }
static void fail_allocation(int n) { options.fail_alloc = n; }
static void fail_graph(int n) { options.fail_graph = n; }
static int finding_count(void) { return count; }
static void set_blas(int mode) { options.blas = (Blas)mode; }
static int heuristic_count(void) { return heuristics; }

cudasim_counts counts;
static void take_counts(cudasim_counts *out) {
    CUDASIM_LOCK;
    if (out != nullptr)
        *out = counts;
    counts = cudasim_counts();
}

static size_t take_findings(char *text, size_t size) {
    CUDASIM_LOCK;
    size_t length = findings.size();
    if (size > 0) {
        size_t n = length < size - 1 ? length : size - 1;
        memcpy(text, findings.data(), n);
        text[n] = '\0';
    }
    findings.clear();
    check_forget_reports();
    count = 0;
    last_error = sticky_error = cudaSuccess;
    return length;
}

static size_t live_memory(void) {
    CUDASIM_LOCK;
    return memory_live();
}

} // namespace cudasim

extern "C" __attribute__((visibility("default"))) const cudasim_control_table cudasim_control = {
    sizeof(cudasim_control_table), cudasim::set_seed,        cudasim::set_streams,
    cudasim::set_memory,           cudasim::fail_allocation, cudasim::finding_count,
    cudasim::take_findings,        cudasim::live_memory,     cudasim::set_blas,
    cudasim::heuristic_count,      cudasim::fail_graph,      cudasim::take_counts,
};
