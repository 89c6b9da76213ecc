/* SPDX-License-Identifier: Apache-2.0 */
/** Communicators. */
#ifndef EMO_CPP_COMM_HPP
#define EMO_CPP_COMM_HPP

#include <emo/cpp/runtime.hpp>

namespace emo {
inline namespace EMO_CPP_MODE {

class comm : public handle<emo_comm, emo_comm_release> {
  public:
    using handle::handle;
    [[nodiscard]] static outcome<comm> single(const runtime &rt) {
        return detail::make<comm>(
            rt, [&](emo_comm **out, emo_error *e) { return emo_comm_create_single(rt.get(), out, e); });
    }
    /** The ranks of one process, each for a thread of its own. */
    [[nodiscard]] static outcome<std::vector<comm>> local(const runtime &rt, std::int32_t ranks) {
        const std::size_t n = ranks > 0 ? static_cast<std::size_t>(ranks) : 0;
        std::vector<emo_comm *> raw(n + 1, nullptr);
        std::vector<comm> all;
        all.reserve(n);
        emo_error e = EMO_ERROR_INIT;
        const emo_status status = emo_comm_create_local(rt.get(), ranks, raw.data(), &e);
        for (std::size_t r = 0; status == EMO_OK && r < n; r++)
            all.emplace_back(raw[r], rt.runtime_hooks(), detail::ref<detail::hook_set>());
        return detail::finish(status, e, std::move(all));
    }
    outcome<void> set_timeout(double seconds) {
        return detail::run([&](emo_error *e) { return emo_comm_set_timeout(get(), seconds, e); });
    }
    std::int32_t rank() const noexcept { return emo_comm_rank(get()); }
    std::int32_t size() const noexcept { return emo_comm_size(get()); }
    outcome<void> all_reduce_sum(span<float> data) { return sum(data.data(), data.size(), EMO_DTYPE_F32); }
    outcome<void> all_reduce_sum(span<double> data) { return sum(data.data(), data.size(), EMO_DTYPE_F64); }
    outcome<void> all_reduce_sum(span<std::int32_t> data) { return sum(data.data(), data.size(), EMO_DTYPE_I32); }
    outcome<void> all_reduce_sum(span<std::int64_t> data) { return sum(data.data(), data.size(), EMO_DTYPE_I64); }
    outcome<void> broadcast(void *data, std::size_t bytes, std::int32_t root) {
        return detail::run([&](emo_error *e) { return emo_comm_broadcast(get(), data, bytes, root, e); });
    }
    outcome<void> barrier() {
        return detail::run([&](emo_error *e) { return emo_comm_barrier(get(), e); });
    }
    /** Any thread. */
    void abort() noexcept { emo_comm_abort(get()); }

  private:
    outcome<void> sum(void *data, std::size_t count, emo_dtype dtype) {
        return detail::run([&](emo_error *e) { return emo_comm_all_reduce_sum(get(), data, count, dtype, e); });
    }
};

} // namespace EMO_CPP_MODE
} // namespace emo
#endif
