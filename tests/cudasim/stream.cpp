/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams, events and graphs. Every operation is a node of a graph of what must come before what, and runs only when
 * something waits for it: work that nobody ordered before its reader has not happened when the reader runs.
 */
#include "cudasim/internal.h"

#include <algorithm>
#include <map>
#include <set>
#include <stdio.h>

struct CUstream_st {
    cudasim::NodePtr last;
    std::vector<cudasim::NodePtr> extra; /* events waited for */
    std::vector<cudasim::NodePtr> *capture = nullptr;
    bool origin = false; /* capture began here */
    bool blocking = true;
};
struct CUevent_st {
    cudasim::NodePtr node;
    std::vector<cudasim::NodePtr> *capture = nullptr;
    int asked = 0;
};
struct CUgraph_st {
    std::vector<cudasim::NodePtr> nodes;
};
struct CUgraphExec_st {
    std::shared_ptr<std::vector<cudasim::NodePtr>> nodes;
};

namespace cudasim {

static CUstream_st legacy;
static std::set<CUstream_st *> streams{&legacy};
static std::vector<NodePtr> pending;
static uint64_t order = 88172645463325252ull;
/* An error of work that ran later than its call shows at the next call that waits. */
static cudaError_t late_error;

static CUstream_st *stream_of(cudaStream_t s) {
    return s == nullptr || s == cudaStreamLegacy || s == cudaStreamPerThread ? &legacy : s;
}
bool is_capturing(cudaStream_t s) { return stream_of(s)->capture != nullptr; }

cudaError_t stream_valid(cudaStream_t s) {
    if (sticky_error != cudaSuccess)
        return fail(sticky_error);
    return streams.count(stream_of(s)) != 0 ? cudaSuccess : fail(cudaErrorInvalidResourceHandle);
}

/* Runs what must come before, then the node; no recursion, chains are long. */
static void run_node(const NodePtr &target) {
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
            cudaError_t error = run();
            if (error != cudaSuccess && late_error == cudaSuccess)
                late_error = error;
        }
    }
}

cudaError_t drain(const NodePtr &target) {
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
    cudaError_t error = sticky_error != cudaSuccess ? sticky_error : late_error;
    late_error = cudaSuccess;
    return fail(error);
}

cudaError_t enqueue(cudaStream_t handle, std::function<cudaError_t()> run, NodePtr *out) {
    cudaError_t error = stream_valid(handle);
    if (error != cudaSuccess)
        return error;
    CUstream_st *s = stream_of(handle);
    auto node = std::make_shared<Node>();
    node->run = std::move(run);
    if (s->last && (s->capture != nullptr || !s->last->done))
        node->before.push_back(s->last);
    for (NodePtr &e : s->extra)
        node->before.push_back(e);
    s->extra.clear();
    s->last = node;
    if (out != nullptr)
        *out = node;
    if (s->capture != nullptr) {
        s->capture->push_back(node);
        return cudaSuccess;
    }
    /* The default stream comes after all blocking ones and they after it. */
    if (s == &legacy) {
        for (CUstream_st *t : streams)
            if (t != s && t->blocking && t->capture == nullptr && t->last && !t->last->done)
                node->before.push_back(t->last);
    } else if (s->blocking && legacy.last && !legacy.last->done) {
        node->before.push_back(legacy.last);
    }
    if (options.streams == 0)
        return drain(node);
    pending.push_back(node);
    if (pending.size() > 4096) /* bounds what a program that never waits can pile up */
        return drain(nullptr);
    return cudaSuccess;
}

static cudaError_t wait_stream(CUstream_st *s) {
    for (NodePtr &e : s->extra) {
        cudaError_t error = drain(e);
        if (error != cudaSuccess)
            return error;
    }
    return s->last ? drain(s->last) : fail(sticky_error);
}

/* A graph is one node whose run walks a fresh copy of the captured nodes. */
static cudaError_t run_graph(const std::vector<NodePtr> &captured) {
    std::map<const Node *, NodePtr> copies;
    std::vector<NodePtr> nodes;
    for (const NodePtr &from : captured) {
        auto copy = std::make_shared<Node>();
        copy->run = from->run;
        for (const NodePtr &b : from->before) {
            auto it = copies.find(b.get());
            if (it != copies.end())
                copy->before.push_back(it->second);
        }
        copies[from.get()] = copy;
        nodes.push_back(copy);
    }
    /* The last first: what nothing orders runs in an order that capture did not have. */
    for (auto it = nodes.rbegin(); it != nodes.rend(); ++it)
        run_node(*it);
    return cudaSuccess;
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
        return fail(cudaErrorStreamCaptureUnsupported);
    }
    return wait_stream(stream_of(s));
}

cudaError_t cudaStreamQuery(cudaStream_t s) {
    CUDASIM_LOCK;
    cudaError_t error = stream_valid(s);
    if (error != cudaSuccess)
        return error;
    CUstream_st *stream = stream_of(s);
    if (!stream->last || stream->last->done)
        return cudaSuccess;
    error = drain(stream->last); /* the next question finds it done */
    return error != cudaSuccess ? error : cudaErrorNotReady;
}

cudaError_t cudaDeviceSynchronize(void) {
    CUDASIM_LOCK;
    for (CUstream_st *s : streams)
        if (s->capture != nullptr) {
            finding("cudaDeviceSynchronize while a stream is being captured");
            return fail(cudaErrorStreamCaptureUnsupported);
        }
    return drain(nullptr);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t fn, void *data) {
    CUDASIM_LOCK;
    return enqueue(s, [fn, data] {
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
    cudaError_t error = enqueue(s, nullptr, &e->node);
    e->capture = stream_of(s)->capture;
    e->asked = 0;
    return error;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned) { return cudaEventRecord(e, s); }

cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    CUDASIM_LOCK;
    if (e->capture != nullptr)
        return fail(cudaErrorCapturedEvent);
    return e->node ? drain(e->node) : fail(sticky_error);
}

cudaError_t cudaEventQuery(cudaEvent_t e) {
    CUDASIM_LOCK;
    if (!e->node || e->node->done)
        return fail(sticky_error);
    if (e->asked++ == 0) /* not done when first asked, so that both answers are met */
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
        return fail(cudaErrorStreamCaptureIsolation);
    }
    if (!e->node->done)
        stream->extra.push_back(e->node);
    return cudaSuccess;
}

/* ---- graphs ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode) {
    CUDASIM_LOCK;
    cudaError_t error = stream_valid(s);
    if (error != cudaSuccess)
        return error;
    CUstream_st *stream = stream_of(s);
    if (stream == &legacy)
        return fail(cudaErrorStreamCaptureUnsupported);
    if (stream->capture != nullptr)
        return fail(cudaErrorIllegalState);
    error = wait_stream(stream); /* nodes of before must not enter the graph */
    stream->capture = new std::vector<NodePtr>;
    stream->origin = true;
    stream->last = nullptr;
    stream->extra.clear();
    return error;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *out) {
    CUDASIM_LOCK;
    CUstream_st *stream = stream_of(s);
    if (stream->capture == nullptr || !stream->origin)
        return fail(cudaErrorIllegalState);
    std::vector<NodePtr> *capture = stream->capture;
    /* Every stream that joined must have been joined back: its last node must lead to this stream's last one. */
    std::set<const Node *> led;
    std::vector<const Node *> walk;
    if (stream->last)
        walk.push_back(stream->last.get());
    for (NodePtr &e : stream->extra)
        walk.push_back(e.get());
    while (!walk.empty()) {
        const Node *n = walk.back();
        walk.pop_back();
        if (led.insert(n).second)
            for (const NodePtr &b : n->before)
                walk.push_back(b.get());
    }
    bool joined = true;
    for (CUstream_st *t : streams)
        if (t->capture == capture) {
            joined = joined && (t == stream || !t->last || led.count(t->last.get()) != 0);
            t->capture = nullptr;
            t->origin = false;
            t->last = nullptr;
            t->extra.clear();
        }
    *out = nullptr;
    if (!joined) {
        delete capture;
        finding("a stream that joined the capture was not joined back");
        return fail(cudaErrorStreamCaptureUnjoined);
    }
    *out = new CUgraph_st{std::move(*capture)};
    delete capture;
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *out) {
    CUDASIM_LOCK;
    *out = is_capturing(s) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long) {
    CUDASIM_LOCK;
    *out = new CUgraphExec_st{std::make_shared<std::vector<NodePtr>>(graph->nodes)};
    return cudaSuccess;
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph, cudaGraphExecUpdateResultInfo *info) {
    CUDASIM_LOCK;
    if (info != nullptr)
        *info = cudaGraphExecUpdateResultInfo();
    bool same = exec->nodes->size() == graph->nodes.size();
    if (!same) {
        if (info != nullptr)
            info->result = cudaGraphExecUpdateErrorTopologyChanged;
        return fail(cudaErrorGraphExecUpdateFailure);
    }
    exec->nodes = std::make_shared<std::vector<NodePtr>>(graph->nodes);
    return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count) {
    if (nodes == nullptr)
        *count = graph->nodes.size();
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s) {
    CUDASIM_LOCK;
    auto nodes = exec->nodes;
    return enqueue(s, [nodes] { return run_graph(*nodes); });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t s) {
    CUDASIM_LOCK;
    return stream_valid(s);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    CUDASIM_LOCK;
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    CUDASIM_LOCK;
    delete exec;
    return cudaSuccess;
}

} /* extern "C" */
