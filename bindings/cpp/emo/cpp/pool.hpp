/* SPDX-License-Identifier: Apache-2.0 */
/** Document pools. */
#ifndef EMO_CPP_POOL_HPP
#define EMO_CPP_POOL_HPP

#include <emo/cpp/runtime.hpp>

namespace emo {
inline namespace EMO_CPP_MODE {

class pool_policy : public handle<emo_pool_policy, emo_pool_policy_release> {
  public:
    using handle::handle;
    [[nodiscard]] static outcome<pool_policy> none(const runtime &rt) {
        return by(rt,
                  [&](emo_pool_policy **out, emo_error *e) { return emo_pool_policy_create_none(rt.get(), out, e); });
    }
    [[nodiscard]] static outcome<pool_policy> fixed(const runtime &rt, std::int32_t pool) {
        return by(rt, [&](emo_pool_policy **out, emo_error *e) {
            return emo_pool_policy_create_fixed(rt.get(), pool, out, e);
        });
    }
    [[nodiscard]] static outcome<pool_policy> uniform(const runtime &rt, std::int32_t min, std::int32_t max) {
        return by(rt, [&](emo_pool_policy **out, emo_error *e) {
            return emo_pool_policy_create_uniform(rt.get(), min, max, out, e);
        });
    }
    [[nodiscard]] static outcome<pool_policy> mass(const runtime &rt, float mass, std::int32_t min, std::int32_t max) {
        return by(rt, [&](emo_pool_policy **out, emo_error *e) {
            return emo_pool_policy_create_mass(rt.get(), mass, min, max, out, e);
        });
    }
    [[nodiscard]] static outcome<pool_policy> scheduled(const runtime &rt, std::int32_t min, std::int64_t decay_steps) {
        return by(rt, [&](emo_pool_policy **out, emo_error *e) {
            return emo_pool_policy_create_scheduled(rt.get(), min, decay_steps, out, e);
        });
    }
    /** sizes: [layers * documents] */
    [[nodiscard]] static outcome<pool_policy> table(const runtime &rt, std::int32_t layers, std::int64_t documents,
                                                    span<const std::int32_t> sizes) {
        return by(rt, [&](emo_pool_policy **out, emo_error *e) {
            return emo_pool_policy_create_table(rt.get(), layers, documents, sizes.data(), out, e);
        });
    }
    [[nodiscard]] static outcome<pool_policy> from_prompt(const runtime &rt, std::int32_t pool) {
        return by(rt, [&](emo_pool_policy **out, emo_error *e) {
            return emo_pool_policy_from_prompt(rt.get(), pool, out, e);
        });
    }
    [[nodiscard]] static outcome<pool_policy> parse(const runtime &rt, cstr text) {
        return by(rt, [&](emo_pool_policy **out, emo_error *e) {
            return emo_pool_policy_parse(rt.get(), text.get(), out, e);
        });
    }
    [[nodiscard]] outcome<std::string> describe() const {
        return detail::gather<std::string>([&](char *out, std::size_t capacity, std::size_t *size, emo_error *e) {
            const emo_status status = emo_pool_policy_describe(get(), out, capacity, size, e);
            if (status == EMO_OK && capacity > 0)
                *size -= 1;
            return status;
        });
    }
    outcome<void> set_scope(emo_pool_scope scope) {
        return detail::run([&](emo_error *e) { return emo_pool_policy_set_scope(get(), scope, e); });
    }
    outcome<void> set_forced(std::int32_t forced) {
        return detail::run([&](emo_error *e) { return emo_pool_policy_set_forced(get(), forced, e); });
    }
    outcome<void> set_eval_pool(std::int32_t pool) {
        return detail::run([&](emo_error *e) { return emo_pool_policy_set_eval_pool(get(), pool, e); });
    }
    emo_pool_kind kind() const noexcept { return emo_pool_policy_kind(get()); }
    emo_pool_scope scope() const noexcept { return emo_pool_policy_scope(get()); }

  private:
    template <class F>
    static outcome<pool_policy> by(const runtime &rt, F &&f) {
        return detail::make<pool_policy>(rt, std::forward<F>(f));
    }
};

} // namespace EMO_CPP_MODE
} // namespace emo
#endif
