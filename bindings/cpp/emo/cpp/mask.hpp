/* SPDX-License-Identifier: Apache-2.0 */
/** Expert masks: sets of expert ids per layer, with the operators of sets. */
#ifndef EMO_CPP_MASK_HPP
#define EMO_CPP_MASK_HPP

#include <emo/cpp/runtime.hpp>

namespace emo {
inline namespace EMO_CPP_MODE {

struct mask_options : options<emo_mask_options> {
    mask_options() noexcept : options(EMO_MASK_OPTIONS_INIT) {}
};

class mask : public handle<emo_mask, emo_mask_release> {
  public:
    using handle::handle;
    /** experts, shared: [layers]; shared may be empty. full: every expert on, else the shared ones alone. */
    [[nodiscard]] static outcome<mask> create(const runtime &rt, span<const std::int32_t> experts,
                                              span<const std::int32_t> shared = {}, bool full = false) {
        return detail::make<mask>(rt, [&](emo_mask **out, emo_error *e) {
            return emo_mask_create(rt.get(), static_cast<std::int32_t>(experts.size()), experts.data(),
                                   shared.empty() ? nullptr : shared.data(), full ? 1 : 0, out, e);
        });
    }
    [[nodiscard]] static outcome<mask> create(const runtime &rt, const mask_options &o) {
        return detail::make<mask>(
            rt, [&](emo_mask **out, emo_error *e) { return emo_mask_create_with(rt.get(), &o, out, e); });
    }
    [[nodiscard]] static outcome<mask> load(const runtime &rt, cstr path) {
        return detail::make<mask>(
            rt, [&](emo_mask **out, emo_error *e) { return emo_mask_load(rt.get(), path.get(), out, e); });
    }
    [[nodiscard]] static outcome<mask> from_json(const runtime &rt, std::string_view text) {
        return detail::make<mask>(rt, [&](emo_mask **out, emo_error *e) {
            return emo_mask_from_json(rt.get(), text.data(), text.size(), out, e);
        });
    }
    [[nodiscard]] outcome<mask> clone() const {
        return detail::make<mask>(*this, [&](emo_mask **out, emo_error *e) { return emo_mask_clone(get(), out, e); });
    }
    std::int32_t layers() const noexcept { return emo_mask_layers(get()); }
    std::int32_t experts(std::int32_t layer) const noexcept { return emo_mask_experts(get(), layer); }
    std::int32_t shared(std::int32_t layer) const noexcept { return emo_mask_shared(get(), layer); }
    bool contains(std::int32_t layer, std::int32_t expert) const noexcept {
        return emo_mask_get(get(), layer, expert) != 0;
    }
    bool is_always(std::int32_t layer, std::int32_t expert) const noexcept {
        return emo_mask_is_always(get(), layer, expert) != 0;
    }
    outcome<void> set(std::int32_t layer, std::int32_t expert, bool on) {
        return detail::run([&](emo_error *e) { return emo_mask_set(get(), layer, expert, on ? 1 : 0, e); });
    }
    std::int32_t count(std::int32_t layer) const noexcept { return emo_mask_count(get(), layer); }
    /** The kept experts of all layers. */
    std::int64_t size() const noexcept {
        std::int64_t n = 0;
        for (std::int32_t layer = 0; layer < layers(); layer++)
            n += count(layer);
        return n;
    }
    /** The kept ids of a layer, ascending. */
    [[nodiscard]] outcome<std::vector<std::int32_t>> list(std::int32_t layer) const {
        std::vector<std::int32_t> ids(static_cast<std::size_t>(count(layer)));
        std::int32_t n = 0;
        emo_error e = EMO_ERROR_INIT;
        const emo_status status = emo_mask_list(get(), layer, ids.empty() ? nullptr : ids.data(), count(layer), &n, &e);
        return detail::finish(status, e, std::move(ids));
    }
    [[nodiscard]] outcome<std::string> to_json() const {
        outcome<std::string> all =
            detail::gather<std::string>([&](char *out, std::size_t capacity, std::size_t *size, emo_error *e) {
                const emo_status status = emo_mask_to_json(get(), out, capacity, size, e);
                if (status == EMO_OK && capacity > 0)
                    *size -= 1; /* the NUL is the string's own business */
                return status;
            });
        return all;
    }
    outcome<void> save(cstr path) const {
        return detail::run([&](emo_error *e) { return emo_mask_save(get(), path.get(), e); });
    }

    /** Set algebra, layer by layer; shared experts always stay. */
    [[nodiscard]] friend outcome<mask> operator|(const mask &a, const mask &b) { return both(a, b, emo_mask_union); }
    [[nodiscard]] friend outcome<mask> operator&(const mask &a, const mask &b) {
        return both(a, b, emo_mask_intersect);
    }
    [[nodiscard]] friend outcome<mask> operator-(const mask &a, const mask &b) { return both(a, b, emo_mask_subtract); }
    [[nodiscard]] friend outcome<mask> operator~(const mask &a) {
        return detail::make<mask>(a,
                                  [&](emo_mask **out, emo_error *e) { return emo_mask_complement(a.get(), out, e); });
    }
    friend bool operator==(const mask &a, const mask &b) noexcept { return emo_mask_equal(a.get(), b.get()) != 0; }
    friend bool operator!=(const mask &a, const mask &b) noexcept { return !(a == b); }

  private:
    using algebra = emo_status (*)(const emo_mask *, const emo_mask *, emo_mask **, emo_error *);
    static outcome<mask> both(const mask &a, const mask &b, algebra f) {
        return detail::make<mask>(a, [&](emo_mask **out, emo_error *e) { return f(a.get(), b.get(), out, e); });
    }
};

#if !EMO_CPP_EXCEPTIONS
/** So that expressions of several operators work where results are returned: the first error wins. */
[[nodiscard]] inline result<mask> operator|(result<mask> a, const mask &b) {
    return a ? result<mask>(*a | b) : std::move(a);
}
[[nodiscard]] inline result<mask> operator&(result<mask> a, const mask &b) {
    return a ? result<mask>(*a & b) : std::move(a);
}
[[nodiscard]] inline result<mask> operator-(result<mask> a, const mask &b) {
    return a ? result<mask>(*a - b) : std::move(a);
}
[[nodiscard]] inline result<mask> operator~(result<mask> a) { return a ? result<mask>(~*a) : std::move(a); }
#endif

} // namespace EMO_CPP_MODE
} // namespace emo
#endif
