/* SPDX-License-Identifier: Apache-2.0 */
/** What all handles have in common. */
#ifndef EMO_CPP_HANDLE_HPP
#define EMO_CPP_HANDLE_HPP

#include <emo/cpp/hooks.hpp>

namespace emo {
inline namespace EMO_CPP_MODE {

/**
 * Owns one reference to an object of the library; move-only, may be empty. Objects may go in any order: a child keeps
 * its parents alive, and with them the lambdas that the parents' runtime was given. (An object made from those of two
 * runtimes keeps the lambdas of the first; then both runtimes must outlive it.)
 */
template <class Raw, void (*Release)(Raw *)>
class handle {
  public:
    using raw_type = Raw;
    handle() noexcept = default;
    /** Takes over a reference that C gave. */
    explicit handle(Raw *raw) noexcept : raw_(raw) {}
    handle(Raw *raw, detail::ref<detail::hook_set> runtime, detail::ref<detail::hook_set> own) noexcept
        : runtime_(std::move(runtime)), own_(std::move(own)), raw_(raw) {}
    handle(handle &&other) noexcept
        : runtime_(std::move(other.runtime_)), own_(std::move(other.own_)), raw_(std::exchange(other.raw_, nullptr)) {}
    handle &operator=(handle &&other) noexcept {
        if (this != &other) {
            Release(raw_);
            raw_ = std::exchange(other.raw_, nullptr);
            runtime_ = std::move(other.runtime_);
            own_ = std::move(other.own_);
        }
        return *this;
    }
    handle(const handle &) = delete;
    handle &operator=(const handle &) = delete;
    ~handle() { Release(raw_); }
    /** Releases the object now. */
    void reset() noexcept { *this = handle(); }
    /** For calls of the C API; still owned by this. */
    Raw *get() const noexcept { return raw_; }
    explicit operator bool() const noexcept { return raw_ != nullptr; }
    const detail::ref<detail::hook_set> &runtime_hooks() const noexcept { return runtime_; }

  protected:
    detail::hook_set *own_hooks() const noexcept { return own_.get(); }

  private:
    detail::ref<detail::hook_set> runtime_; /* both go after the object: see the destructor */
    detail::ref<detail::hook_set> own_;
    Raw *raw_ = nullptr;
};

namespace detail {
/** A handle H from call(&raw, &err), a child of `parent`. Hooks of `o` live as long as it when `lasting`. */
template <class H, class P, class F>
outcome<H> make(const P &parent, F &&call) {
    typename H::raw_type *raw = nullptr;
    emo_error e = EMO_ERROR_INIT;
    const emo_status status = call(&raw, &e);
    return finish(status, e, H(raw, parent.runtime_hooks(), ref<hook_set>()));
}
template <class H, class P, class O, class F>
outcome<H> make_with(const P &parent, const O &o, bool lasting, F &&call) {
    typename H::raw_type *raw = nullptr;
    emo_error e = EMO_ERROR_INIT;
    emo_status status = EMO_E_OUT_OF_MEMORY;
    if (o.complete())
        status = call(&raw, &e);
    else
        e = no_memory().raw();
    return finish(status, e, H(raw, parent.runtime_hooks(), lasting ? o.hooks_ref() : ref<hook_set>()), o.hooks());
}
} // namespace detail

} // namespace EMO_CPP_MODE
} // namespace emo
#endif
