/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams and events. Every operation is a node of a graph of what must come before what, and runs only when
 * something waits for it: work that nobody ordered before its reader has not happened when the reader runs.
 */
#include "cudasim/internal.h"

#include <algorithm>

namespace cudasim {

static CUstream_st legacy;
static std::set<CUstream_st *> streams{&legacy};
static std::vector<NodePtr> pending;
static uint64_t order = 88172645463325252ull;
/* An error of work that ran later than its call shows at the next call that waits. */
static cudaError_t late_error;

CUstream_st *stream_of(cudaStream_t s) {
    return s == nullptr || s == cudaStreamLegacy || s == cudaStreamPerThread ? &legacy : s;
}
bool is_capturing(cudaStream_t s) { return stream_of(s)->capture != nullptr; }
const std::set<CUstream_st *> &all_streams() { return streams; }

cudaError_t stream_valid(cudaStream_t s) {
    if (sticky_error != cudaSuccess)
        return fail(sticky_error);
    return streams.count(stream_of(s)) != 0 ? cudaSuccess : fail(cudaErrorInvalidResourceHandle);
}

cudaError_t capture_forbids(const char *call) {
    for (CUstream_st *s : streams) {
        Capture *c = s->capture;
        if (c == nullptr || c->mode == cudaStreamCaptureModeRelaxed ||
            (c->mode == cudaStreamCaptureModeThreadLocal && c->thread != std::this_thread::get_id()))
            continue;
        finding("%s while a stream is being captured", call);
        c->invalid = true;
        return fail(cudaErrorStreamCaptureUnsupported);
    }
    return cudaSuccess;
}

/* Runs what must come before, then the node; no recursion, chains are long. */
void run_node(const NodePtr &target) {
    std::vector<NodePtr> stack{target};
    while (!stack.empty()) {
        NodePtr node = stack.back();
        size_t height = stack.size();
        if (!node->done)
            for (NodePtr &b : node->before)
                if (!b->done)
                    stack.push_back(b);
        if (stack.size() > height)
            continue;
        stack.pop_back();
        if (node->done)
            continue;
        node->before.clear();
        node->done = true;
        std::function<cudaError_t()> run = std::move(node->run);
        node->run = nullptr;
        if (run && sticky_error == cudaSuccess) {
            actor_begin(*node);
            cudaError_t error = run();
            if (error != cudaSuccess && late_error == cudaSuccess)
                late_error = error;
        }
    }
}

/* Runs the target and what comes before it, or everything. */
static cudaError_t run_pending(const NodePtr &target) {
    if (options.streams == 2) {
        while (!pending.empty() && !(target && target->done)) {
            order ^= order << 13;
            order ^= order >> 7;
            order ^= order << 17;
            size_t i = (order ^ options.seed) % pending.size();
            NodePtr node = pending[i];
            pending[i] = pending.back();
            pending.pop_back();
            run_node(node);
        }
    }
    if (target)
        run_node(target);
    else
        for (size_t i = 0; i < pending.size(); i++)
            run_node(NodePtr(pending[i]));
    pending.erase(std::remove_if(pending.begin(), pending.end(), [](const NodePtr &n) { return n->done; }),
                  pending.end());
    return sticky_error != cudaSuccess ? sticky_error : late_error;
}

cudaError_t drain(const NodePtr &target) {
    cudaError_t error = run_pending(target);
    late_error = cudaSuccess;
    clock_host_waited(target ? target->clock : clock_issued());
    return fail(error);
}

cudaError_t enqueue(cudaStream_t handle, const char *name, std::function<cudaError_t()> run, NodePtr *out) {
    cudaError_t error = stream_valid(handle);
    if (error != cudaSuccess)
        return error;
    CUstream_st *s = stream_of(handle);
    if (s->capture != nullptr && s->capture->invalid)
        return fail(cudaErrorStreamCaptureInvalidated);
    for (CUstream_st *t : streams) /* the default stream would have to wait for what only a graph will do */
        if (s == &legacy && t->blocking && t->capture != nullptr) {
            finding("%s on the default stream while a stream that waits for it is being captured", name);
            t->capture->invalid = true;
            return fail(cudaErrorStreamCaptureImplicit);
        }
    auto node = std::make_shared<Node>();
    node->run = std::move(run);
    node->name = name;
    if (s->last)
        node->before.push_back(s->last);
    for (NodePtr &e : s->extra)
        node->before.push_back(e);
    s->extra.clear();
    s->last = node;
    if (out != nullptr)
        *out = node;
    if (s->capture != nullptr) {
        node->stream = s->number;
        s->capture->nodes.push_back(node);
        return cudaSuccess;
    }
    /* The default stream comes after all blocking ones and they after it. */
    if (s == &legacy) {
        for (CUstream_st *t : streams)
            if (t != s && t->blocking && t->capture == nullptr && t->last)
                node->before.push_back(t->last);
    } else if (s->blocking && legacy.last) {
        node->before.push_back(legacy.last);
    }
    node->clock = clock_host();
    for (NodePtr &b : node->before)
        clock_join(node->clock, b->clock);
    clock_stamp(*node, s->number);
    if (options.streams == 0)
        return run_pending(node);
    pending.push_back(node);
    if (pending.size() > 4096) /* bounds what a program that never waits can pile up */
        return run_pending(nullptr);
    return cudaSuccess;
}

cudaError_t wait_stream(CUstream_st *s) {
    for (NodePtr &e : s->extra) {
        cudaError_t error = drain(e);
        if (error != cudaSuccess)
            return error;
    }
    return s->last ? drain(s->last) : fail(sticky_error);
}

} // namespace cudasim

using namespace cudasim;

extern "C" {

/* ---- streams ---- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags) {
    CUDASIM_LOCK;
    if (sticky_error != cudaSuccess)
        return fail(sticky_error);
    *out = new CUstream_st;
    (*out)->number = clock_new_stream();
    (*out)->blocking = (flags & cudaStreamNonBlocking) == 0;
    streams.insert(*out);
    return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t *out) { return cudaStreamCreateWithFlags(out, 0); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int) {
    return cudaStreamCreateWithFlags(out, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t s) {
    CUDASIM_LOCK;
    if (stream_of(s) == &legacy || streams.count(s) == 0)
        return fail(cudaErrorInvalidResourceHandle);
    cudaError_t error = wait_stream(s);
    streams.erase(s);
    delete s;
    return error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s) {
    CUDASIM_LOCK;
    cudaError_t error = stream_valid(s);
    if (error != cudaSuccess)
        return error;
    if (is_capturing(s)) {
        finding("cudaStreamSynchronize on a stream that is being captured");
        stream_of(s)->capture->invalid = true;
        return fail(cudaErrorStreamCaptureUnsupported);
    }
    counts.waits++;
    return wait_stream(stream_of(s));
}

cudaError_t cudaStreamQuery(cudaStream_t s) {
    CUDASIM_LOCK;
    cudaError_t error = stream_valid(s);
    if (error != cudaSuccess)
        return error;
    CUstream_st *stream = stream_of(s);
    bool done = !stream->last || stream->last->done;
    error = wait_stream(stream); /* the next question finds it done */
    return error != cudaSuccess || done ? error : cudaErrorNotReady;
}

cudaError_t cudaDeviceSynchronize(void) {
    CUDASIM_LOCK;
    cudaError_t error = capture_forbids("cudaDeviceSynchronize");
    counts.waits++;
    return error != cudaSuccess ? error : drain(nullptr);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t fn, void *data) {
    CUDASIM_LOCK;
    return enqueue(s, "cudaLaunchHostFunc", [fn, data] {
        fn(data);
        return cudaSuccess;
    });
}

/* ---- events ---- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned) {
    CUDASIM_LOCK;
    if (sticky_error != cudaSuccess)
        return fail(sticky_error);
    *out = new CUevent_st;
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *out) { return cudaEventCreateWithFlags(out, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t e) {
    CUDASIM_LOCK;
    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    CUDASIM_LOCK;
    cudaError_t error = enqueue(s, "cudaEventRecord", nullptr, &e->node);
    e->capture = stream_of(s)->capture;
    e->asked = 0;
    return error;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned) { return cudaEventRecord(e, s); }

cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    CUDASIM_LOCK;
    if (e->capture != nullptr)
        return fail(cudaErrorCapturedEvent);
    counts.waits++;
    return e->node ? drain(e->node) : fail(sticky_error);
}

cudaError_t cudaEventQuery(cudaEvent_t e) {
    CUDASIM_LOCK;
    if (!e->node)
        return fail(sticky_error);
    if (e->asked++ == 0 && !e->node->done) /* not done when first asked, so that both answers are met */
        return cudaErrorNotReady;
    cudaError_t error = drain(e->node);
    return error;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t, cudaEvent_t) {
    *milliseconds = 0;
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
    CUDASIM_LOCK;
    cudaError_t error = stream_valid(s);
    if (error != cudaSuccess || !e->node)
        return error;
    CUstream_st *stream = stream_of(s);
    if (e->capture != nullptr) {
        if (stream->capture == nullptr) { /* the stream joins the capture */
            stream->capture = e->capture;
            stream->last = nullptr;
            stream->extra.clear();
        } else if (stream->capture != e->capture) {
            return fail(cudaErrorStreamCaptureMerge);
        }
        stream->extra.push_back(e->node);
        return cudaSuccess;
    }
    if (stream->capture != nullptr) {
        finding("a captured stream waits for an event that was recorded outside the capture");
        stream->capture->invalid = true;
        return fail(cudaErrorStreamCaptureIsolation);
    }
    stream->extra.push_back(e->node); /* also when it is done: it orders */
    return cudaSuccess;
}

} /* extern "C" */
