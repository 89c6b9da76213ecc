/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happened before what between operations of streams: vector clocks. An operation's clock says, for every stream
 * and branch of a graph, the number of the last operation that is ordered before it.
 */
#include "cudasim/internal.h"

#include <algorithm>

namespace cudasim {

static Clock issued(1); /* of every stream, the last operation that was enqueued */
static Clock host;      /* what the host has waited for */
static Clock now;       /* of the operation that runs */
static std::vector<Actor> actors;
uint32_t actor, actor_base;

void clock_join(Clock &into, const Clock &from) {
    if (into.size() < from.size())
        into.resize(from.size());
    for (size_t i = 0; i < from.size(); i++)
        into[i] = std::max(into[i], from[i]);
}

uint32_t clock_new_stream() {
    issued.push_back(0);
    return (uint32_t)issued.size() - 1;
}

void clock_stamp(Node &node, uint32_t stream) {
    if (node.clock.size() <= stream)
        node.clock.resize(stream + 1);
    node.clock[stream] = ++issued[stream];
    node.stream = stream;
}

const Clock &clock_host() { return host; }
const Clock &clock_issued() { return issued; }

/* When the host has waited for everything there is, nothing of it can race any more. */
void clock_host_waited(const Clock &clock) {
    clock_join(host, clock);
    for (size_t i = 0; i < issued.size(); i++)
        if (issued[i] > (i < host.size() ? host[i] : 0))
            return;
    actor_base += (uint32_t)actors.size();
    actors.clear();
}

const Actor &actor_of(uint32_t id) { return actors[id - actor_base - 1]; }

bool actor_before(uint32_t earlier) {
    if (earlier <= actor_base)
        return true;
    const Actor &a = actor_of(earlier);
    return a.stream < now.size() && now[a.stream] >= a.number;
}

void actor_begin(const Node &node) {
    actors.push_back({node.stream, node.clock[node.stream], node.name});
    actor = actor_base + (uint32_t)actors.size();
    now = node.clock;
}

} // namespace cudasim
