/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs: capture from streams, instantiate, launch, replay. */
#include "cudasim/internal.h"

#include <map>

struct CUgraph_st {
    std::vector<cudasim::NodePtr> nodes;
};
struct CUgraphExec_st {
    std::vector<cudasim::NodePtr> nodes;
    std::map<uint32_t, uint32_t> branches; /* captured stream -> number in clocks */
};

namespace cudasim {

/* A fresh copy of the captured nodes, each with its place in time: after `start` and the nodes before it. */
static std::vector<NodePtr> unfold(const CUgraphExec_st &exec, const Clock &start) {
    std::map<const Node *, NodePtr> copies;
    std::vector<NodePtr> nodes;
    for (const NodePtr &from : exec.nodes) {
        auto copy = std::make_shared<Node>();
        copy->run = from->run;
        copy->name = from->name;
        copy->clock = start;
        for (const NodePtr &b : from->before) {
            auto it = copies.find(b.get());
            if (it == copies.end())
                continue;
            copy->before.push_back(it->second);
            clock_join(copy->clock, it->second->clock);
        }
        clock_stamp(*copy, exec.branches.at(from->stream));
        copies[from.get()] = copy;
        nodes.push_back(copy);
    }
    return nodes;
}

static void take_nodes(CUgraphExec_st *exec, const CUgraph_st &graph) {
    exec->nodes = graph.nodes;
    for (const NodePtr &n : exec->nodes)
        if (exec->branches.count(n->stream) == 0)
            exec->branches[n->stream] = clock_new_stream();
}

} // namespace cudasim

using namespace cudasim;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode) {
    CUDASIM_LOCK;
    cudaError_t error = stream_valid(s);
    if (error != cudaSuccess)
        return error;
    CUstream_st *stream = stream_of(s);
    if (stream == stream_of(nullptr))
        return fail(cudaErrorStreamCaptureUnsupported);
    if (stream->capture != nullptr)
        return fail(cudaErrorIllegalState);
    error = wait_stream(stream); /* nodes of before must not enter the graph */
    stream->capture = new Capture;
    stream->capture->mode = mode;
    stream->capture->thread = std::this_thread::get_id();
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
    Capture *capture = stream->capture;
    if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != std::this_thread::get_id())
        return fail(cudaErrorStreamCaptureWrongThread);
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
    for (CUstream_st *t : all_streams())
        if (t->capture == capture) {
            joined = joined && (t == stream || !t->last || led.count(t->last.get()) != 0);
            t->capture = nullptr;
            t->origin = false;
            t->last = nullptr;
            t->extra.clear();
        }
    *out = nullptr;
    if (capture->invalid) {
        delete capture;
        return fail(cudaErrorStreamCaptureInvalidated);
    }
    if (!joined) {
        delete capture;
        finding("a stream that joined the capture was not joined back");
        return fail(cudaErrorStreamCaptureUnjoined);
    }
    *out = new CUgraph_st{std::move(capture->nodes)};
    delete capture;
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *out) {
    CUDASIM_LOCK;
    const Capture *capture = stream_of(s)->capture;
    *out = capture == nullptr ? cudaStreamCaptureStatusNone
           : capture->invalid ? cudaStreamCaptureStatusInvalidated
                              : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long) {
    CUDASIM_LOCK;
    *out = nullptr;
    if (fails_now(options.fail_graph) || allocation_fails()) /* a graph takes device memory */
        return fail(cudaErrorMemoryAllocation);
    *out = new CUgraphExec_st;
    take_nodes(*out, *graph);
    return cudaSuccess;
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph, cudaGraphExecUpdateResultInfo *info) {
    CUDASIM_LOCK;
    if (info != nullptr)
        *info = cudaGraphExecUpdateResultInfo();
    bool same = exec->nodes.size() == graph->nodes.size();
    if (!same) {
        if (info != nullptr)
            info->result = cudaGraphExecUpdateErrorTopologyChanged;
        return fail(cudaErrorGraphExecUpdateFailure);
    }
    take_nodes(exec, *graph);
    return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count) {
    if (nodes == nullptr)
        *count = graph->nodes.size();
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s) {
    CUDASIM_LOCK;
    if (is_capturing(s))
        return fail(cudaErrorStreamCaptureUnsupported);
    counts.graphs++;
    /* The nodes join the stream's work between two marks: what comes later is ordered after all of them. */
    NodePtr begin;
    cudaError_t error = enqueue(s, "cudaGraphLaunch", nullptr, &begin);
    if (error != cudaSuccess)
        return error;
    for (NodePtr &n : unfold(*exec, begin->clock)) {
        n->before.push_back(begin);
        stream_of(s)->extra.push_back(n);
    }
    return enqueue(s, "cudaGraphLaunch", nullptr);
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
