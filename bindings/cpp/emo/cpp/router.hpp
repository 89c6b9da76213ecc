/* SPDX-License-Identifier: Apache-2.0 */
/** EMO's router alone, for another engine. */
#ifndef EMO_CPP_ROUTER_HPP
#define EMO_CPP_ROUTER_HPP

#include <emo/cpp/comm.hpp>
#include <emo/cpp/mask.hpp>
#include <emo/cpp/pool.hpp>

namespace emo {
inline namespace EMO_CPP_MODE {

struct router_options : options<emo_router_options> {
    router_options() noexcept : options(EMO_ROUTER_OPTIONS_INIT) {}
};
struct router_batch : emo_router_batch {
    router_batch() noexcept : emo_router_batch(EMO_ROUTER_BATCH_INIT) {}
};
/** What forward found: views into the router, valid until its next forward or its release. */
struct routing : emo_routing {
    routing() noexcept : emo_routing(EMO_ROUTING_INIT) {}
    /** The K experts of a token and their weights. */
    span<const std::int32_t> experts_of(std::int64_t token) const noexcept {
        return {indices + token * top_k, static_cast<std::size_t>(top_k)};
    }
    span<const float> weights_of(std::int64_t token) const noexcept {
        return {weights + token * top_k, static_cast<std::size_t>(top_k)};
    }
};

class router : public handle<emo_router, emo_router_release> {
  public:
    using handle::handle;
    [[nodiscard]] static outcome<router> create(const runtime &rt, const router_options &o) {
        const auto experts = static_cast<std::size_t>(o.experts > 0 ? o.experts : 0);
        const auto hidden = static_cast<std::size_t>(o.hidden > 0 ? o.hidden : 0);
        outcome<router> made = detail::make<router>(
            rt, [&](emo_router **out, emo_error *e) { return emo_router_create(rt.get(), &o, out, e); });
#if EMO_CPP_EXCEPTIONS
        made.size_ = experts * hidden;
        made.routed_ = experts - static_cast<std::size_t>(o.shared);
#else
        if (made) {
            made->size_ = experts * hidden;
            made->routed_ = experts - static_cast<std::size_t>(o.shared);
        }
#endif
        return made;
    }
    /** W: [experts, hidden] */
    outcome<void> set_weights(span<const float> w) {
        return detail::run([&](emo_error *e) { return emo_router_set_weights(get(), w.data(), w.size(), e); });
    }
    span<const float> weights() const noexcept { return {emo_router_weights(get()), size_}; }
    /** [routed]; an empty span removes it. */
    outcome<void> set_score_bias(span<const float> bias) {
        return detail::run([&](emo_error *e) { return emo_router_set_score_bias(get(), bias.data(), bias.size(), e); });
    }
    outcome<void> update_score_bias(float rate) {
        return detail::run([&](emo_error *e) { return emo_router_update_score_bias(get(), rate, e); });
    }
    /** Empty when there is none. */
    span<const float> score_bias() const noexcept {
        const float *bias = emo_router_score_bias(get());
        return {bias, bias != nullptr ? routed_ : 0};
    }
    /** pool, restrict_to: nullptr for none. */
    [[nodiscard]] outcome<routing> forward(const router_batch &batch, const pool_policy *pool = nullptr,
                                           const mask *restrict_to = nullptr) {
        return detail::fill(routing(), [&](routing *out, emo_error *e) {
            return emo_router_forward(get(), &batch, pool != nullptr ? pool->get() : nullptr,
                                      restrict_to != nullptr ? restrict_to->get() : nullptr, out, e);
        });
    }
    /** d_weights: [tokens, K] or empty for zero; dx [tokens, hidden] and dw [experts, hidden] are added to, or empty.
     */
    outcome<void> backward(const routing &of, span<const float> d_weights, span<float> dx, span<float> dw) {
        return detail::run([&](emo_error *e) {
            return emo_router_backward(get(), &of, d_weights.empty() ? nullptr : d_weights.data(),
                                       dx.empty() ? nullptr : dx.data(), dw.empty() ? nullptr : dw.data(), e);
        });
    }

  private:
    std::size_t size_ = 0;
    std::size_t routed_ = 0;
};

} // namespace EMO_CPP_MODE
} // namespace emo
#endif
