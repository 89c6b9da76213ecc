/* SPDX-License-Identifier: Apache-2.0 */
/* Launches of kernels, at once or held back. A queue whose tape is not NULL takes what is enqueued as entries of the
 * tape (tape.h): a function with the bytes of its arguments. Entries that would do the same are equal byte for byte, so
 * that the work of a step can be compared with that of an earlier one. Included by emo_gpu.h. */
#ifndef EMO_CUDA_LAUNCH_H
#define EMO_CUDA_LAUNCH_H

#include <cuda_runtime.h>
#include <stddef.h>
#include <string.h>
#include <tuple>
#include <utility>

typedef struct emo_tape emo_tape;
typedef struct emo_queue {
    cudaStream_t stream;
    emo_tape *tape; /* NULL: straight into the stream */
} emo_queue;

/* Enqueues what an entry says. */
typedef cudaError_t (*emo_issue_fn)(const void *entry, cudaStream_t stream);
/* Room for an entry of `bytes` zeros, 16-byte aligned; to be filled before the next one is added. NULL: nothing more
 * can be held back, all before it has been enqueued, and this is to be enqueued at once. (tape.cu) */
void *emo_tape_add(emo_tape *tape, emo_issue_fn issue, const char *what, size_t bytes);

typedef struct emo_launch_shape {
    dim3 grid, block;
    size_t shared;
    const char *name, *file;
    int line;
} emo_launch_shape;

static inline int emo_starts(cudaStream_t stream) { return stream != EMO_NO_STREAM; }
static inline int emo_starts(const emo_queue &queue) { return queue.stream != EMO_NO_STREAM; }

template <class... P, class... A>
static inline cudaError_t emo_launch(cudaStream_t stream, const emo_launch_shape &shape, void (*kernel)(P...),
                                     A &&...args) {
    if (!emo_starts(stream))
        return cudaSuccess;
#ifdef EMO_SIM
    return cudasim::launch(cudasim::LaunchConfig{shape.grid, shape.block, shape.shared, stream, (const void *)kernel,
                                                 shape.name, shape.file, shape.line},
                           kernel, static_cast<P>(args)...);
#else
    kernel<<<shape.grid, shape.block, shape.shared, stream>>>(static_cast<P>(args)...);
    return cudaPeekAtLastError();
#endif
}

template <class... P>
struct emo_held_launch {
    void (*kernel)(P...);
    emo_launch_shape shape; /* the arguments stand behind it */
};

/* Walks over arguments one behind the other. */
struct emo_arguments {
    char *at; /* an address when reading and writing; counted from 0 when measuring */
    template <class T>
    char *next() {
        char *here = (char *)(((uintptr_t)at + alignof(T) - 1) / alignof(T) * alignof(T));
        at = here + sizeof(T);
        return here;
    }
    template <class T>
    T read() {
        T value;
        memcpy((void *)&value, next<T>(), sizeof value);
        return value;
    }
    template <class T>
    int write(T value) {
#if defined(__has_builtin)
#if __has_builtin(__builtin_clear_padding)
        __builtin_clear_padding(&value); /* else equal launches might not look it */
#endif
#endif
        memcpy(next<T>(), (const void *)&value, sizeof value);
        return 0;
    }
};

template <class... P>
static cudaError_t emo_issue_launch(const void *entry, cudaStream_t stream) {
    const emo_held_launch<P...> *held = (const emo_held_launch<P...> *)entry;
    emo_arguments in = {(char *)(uintptr_t)(held + 1)};
    std::tuple<P...> values{in.read<P>()...}; /* braces: in their order */
    return std::apply([&](P &...args) { return emo_launch(stream, held->shape, held->kernel, args...); }, values);
}

template <class... P, class... A>
static inline cudaError_t emo_launch(const emo_queue &queue, const emo_launch_shape &shape, void (*kernel)(P...),
                                     A &&...args) {
    if (queue.tape != NULL && emo_starts(queue)) {
        emo_arguments size = {(char *)sizeof(emo_held_launch<P...>)};
        int order[] = {0, (size.next<P>(), 0)...};
        (void)order;
        void *entry = emo_tape_add(queue.tape, emo_issue_launch<P...>, shape.name, (size_t)(uintptr_t)size.at);
        if (entry != NULL) {
            emo_held_launch<P...> *held = (emo_held_launch<P...> *)entry;
            held->kernel = kernel;
            held->shape.grid = shape.grid;
            held->shape.block = shape.block;
            held->shape.shared = shape.shared;
            held->shape.name = shape.name;
            held->shape.file = shape.file;
            held->shape.line = shape.line;
            emo_arguments out = {(char *)(held + 1)};
            int written[] = {0, out.write<P>(static_cast<P>(args))...};
            (void)written;
            return cudaSuccess;
        }
    }
    return emo_launch(queue.stream, shape, kernel, std::forward<A>(args)...);
}

#endif
