/* SPDX-License-Identifier: Apache-2.0 */
/** Callbacks: how lambdas reach C, how long they live, and what becomes of what they throw. */
#ifndef EMO_CPP_HOOKS_HPP
#define EMO_CPP_HOOKS_HPP

#include <emo/cpp/base.hpp>

#include <atomic>
#include <new>

namespace emo {
inline namespace EMO_CPP_MODE {
namespace detail {

/** Something counted that lives on the heap; made with new (std::nothrow), so that memory may lack. */
class anchor {
  public:
    anchor() noexcept = default;
    anchor(const anchor &) = delete;
    anchor &operator=(const anchor &) = delete;
    virtual ~anchor() = default;
    void hold() noexcept { refs_.fetch_add(1, std::memory_order_relaxed); }
    void drop() noexcept {
        if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1)
            delete this;
    }

  private:
    std::atomic<long> refs_{1};
};

/** A counted pointer to one. */
template <class A>
class ref {
  public:
    ref() noexcept = default;
    explicit ref(A *owned) noexcept : ptr_(owned) {}
    ref(const ref &other) noexcept : ptr_(other.ptr_) {
        if (ptr_ != nullptr)
            ptr_->hold();
    }
    ref(ref &&other) noexcept : ptr_(std::exchange(other.ptr_, nullptr)) {}
    ref &operator=(ref other) noexcept {
        std::swap(ptr_, other.ptr_);
        return *this;
    }
    ~ref() {
        if (ptr_ != nullptr)
            ptr_->drop();
    }
    A *get() const noexcept { return ptr_; }
    A *operator->() const noexcept { return ptr_; }
    explicit operator bool() const noexcept { return ptr_ != nullptr; }

  private:
    A *ptr_ = nullptr;
};

class hook_set;

/** A callable and the set it belongs to. */
class box_base : public anchor {
  public:
    hook_set *set = nullptr;
    ref<box_base> next;
};
template <class F>
class box final : public box_base {
  public:
    explicit box(F &&f) : fn(std::move(f)) {}
    F fn;
};

/** The callables of one options struct, and what one of them threw. */
class hook_set final : public anchor {
  public:
    /** The box, owned by the set; nullptr without memory. */
    template <class F>
    box<std::decay_t<F>> *add(F &&f) {
        std::decay_t<F> copy(std::forward<F>(f));
        auto *made = new (std::nothrow) box<std::decay_t<F>>(std::move(copy));
        if (made == nullptr) {
            lacking_ = true;
            return nullptr;
        }
        made->set = this;
        made->next = std::move(boxes_);
        boxes_ = ref<box_base>(made);
        return made;
    }
    /** A callable found no memory. */
    bool lacking() const noexcept { return lacking_; }
#if EMO_CPP_EXCEPTIONS
    void caught() noexcept {
        if (!thrown_)
            thrown_ = std::current_exception();
    }
    void rethrow() {
        if (thrown_)
            std::rethrow_exception(std::exchange(thrown_, nullptr));
    }
#endif

  private:
#if EMO_CPP_EXCEPTIONS
    std::exception_ptr thrown_;
#endif
    bool lacking_ = false;
    ref<box_base> boxes_;
};

/** Calls fn; 1 when it wants to cancel: it returned true (or non-zero), or threw. */
template <class F, class Arg>
std::int32_t call_cancellable(void *ctx, const Arg &arg) noexcept {
    auto *b = static_cast<box<F> *>(ctx);
    auto go = [&]() -> std::int32_t {
        if constexpr (std::is_void_v<std::invoke_result_t<F &, const Arg &>>) {
            b->fn(arg);
            return 0;
        } else {
            return b->fn(arg) ? 1 : 0;
        }
    };
#if EMO_CPP_EXCEPTIONS
    try {
        return go();
    } catch (...) {
        b->set->caught();
        return 1;
    }
#else
    return go();
#endif
}

/** Calls fn and gives `otherwise` where it throws. */
template <class R, class G>
R shielded(R otherwise, G &&fn) noexcept {
#if EMO_CPP_EXCEPTIONS
    try {
        return fn();
    } catch (...) {
        return otherwise;
    }
#else
    static_cast<void>(otherwise);
    return fn();
#endif
}

/** The same, and keeps what was thrown for the call that fn runs in. */
template <class R, class G>
R shielded_by(hook_set *hooks, R otherwise, G &&fn) noexcept {
#if EMO_CPP_EXCEPTIONS
    try {
        return fn();
    } catch (...) {
        if (hooks != nullptr)
            hooks->caught();
        return otherwise;
    }
#else
    static_cast<void>(hooks);
    static_cast<void>(otherwise);
    return fn();
#endif
}

/** An argument that this binding refuses by itself. */
inline emo_status refuse(emo_error *e, const char *why) noexcept {
    e->code = EMO_E_INVALID_ARGUMENT;
    e->domain = EMO_DOMAIN_ARGUMENT;
    for (std::size_t i = 0; i + 1 < sizeof e->message && why[i] != '\0'; i++)
        e->message[i] = why[i];
    return EMO_E_INVALID_ARGUMENT;
}
[[nodiscard]] inline error no_memory() noexcept {
    emo_error e = EMO_ERROR_INIT;
    static_cast<void>(refuse(&e, "no memory for a callback"));
    return error(EMO_E_OUT_OF_MEMORY, e);
}

/** Ends a call: the value, or the failure as this build reports it. */
#if EMO_CPP_EXCEPTIONS
[[noreturn]] inline void fail(const error &e, hook_set *hooks = nullptr) {
    if (hooks != nullptr)
        hooks->rethrow();
    throw exception(e);
}
template <class T>
T finish(emo_status status, const emo_error &e, T &&value, hook_set *hooks = nullptr) {
    static_assert(!std::is_reference_v<T>);
    if (status != EMO_OK)
        fail(error(status, e), hooks);
    return std::move(value);
}
inline void finish(emo_status status, const emo_error &e, hook_set *hooks = nullptr) {
    if (status != EMO_OK)
        fail(error(status, e), hooks);
}
#else
template <class T>
result<T> finish(emo_status status, const emo_error &e, T &&value, hook_set * = nullptr) {
    static_assert(!std::is_reference_v<T>);
    if (status != EMO_OK)
        return result<T>(error(status, e));
    return result<T>(std::move(value));
}
inline result<void> finish(emo_status status, const emo_error &e, hook_set * = nullptr) {
    if (status != EMO_OK)
        return result<void>(error(status, e));
    return result<void>();
}
#endif

/** call(&err) -> status. */
template <class F>
outcome<void> run(F &&call, hook_set *hooks = nullptr) {
    emo_error e = EMO_ERROR_INIT;
    const emo_status status = call(&e);
    return finish(status, e, hooks);
}
/** call(&value, &err) -> status, into a value of type T that starts as `value`. */
template <class T, class F>
outcome<T> fill(T value, F &&call, hook_set *hooks = nullptr) {
    emo_error e = EMO_ERROR_INIT;
    const emo_status status = call(&value, &e);
    return finish(status, e, std::move(value), hooks);
}
/** The same for calls that take options. */
template <class O, class F>
outcome<void> run_with(const O &o, F &&call) {
    return o.complete() ? run(std::forward<F>(call), o.hooks()) : finish(EMO_E_OUT_OF_MEMORY, no_memory().raw());
}
template <class T, class O, class F>
outcome<T> fill_with(const O &o, T value, F &&call) {
    return o.complete() ? fill(std::move(value), std::forward<F>(call), o.hooks())
                        : finish(EMO_E_OUT_OF_MEMORY, no_memory().raw(), std::move(value));
}
/** A container that is filled after asking for its size: call(data, capacity, &size, &err) -> status. `extra` elements
 * more than the answer are offered, and taken off again. */
template <class C, class F>
outcome<C> gather(F &&call, std::size_t extra = 0) {
    emo_error e = EMO_ERROR_INIT;
    C all;
    std::size_t size = 0;
    emo_status status = call(nullptr, std::size_t{0}, &size, &e);
    if (status == EMO_OK && size + extra > 0) {
        all.resize(size + extra);
        status = call(all.data(), all.size(), &size, &e);
        all.resize(status == EMO_OK ? size : 0);
    }
    return finish(status, e, std::move(all));
}

} // namespace detail

/** A struct of options of the C API with its defaults, and the callbacks that were given to it. Copies share those. */
template <class C>
class options : public C {
  public:
    detail::hook_set *hooks() const noexcept { return hooks_.get(); }
    const detail::ref<detail::hook_set> &hooks_ref() const noexcept { return hooks_; }
    /** False when a callback found no memory; calls that take these options say so. */
    bool complete() const noexcept { return !lacking_ && !(hooks_ && hooks_->lacking()); }

  protected:
    explicit options(const C &defaults) noexcept : C(defaults) {}
    /** A box for f, nullptr without memory: the call that takes the options then says so. */
    template <class F>
    detail::box<std::decay_t<F>> *hold_hook(F &&f) {
        if (!hooks_) {
            hooks_ = detail::ref<detail::hook_set>(new (std::nothrow) detail::hook_set);
            lacking_ = !hooks_;
        }
        return hooks_ ? hooks_->add(std::forward<F>(f)) : nullptr;
    }

  private:
    detail::ref<detail::hook_set> hooks_;
    bool lacking_ = false;
};

/** The same for structs with a progress hook: f(const emo_progress_info &) returns nothing, or true to cancel. */
template <class C>
class options_with_progress : public options<C> {
  public:
    template <class F>
    void on_progress(F &&f) {
        using Fn = std::decay_t<F>;
        auto *b = this->hold_hook(std::forward<F>(f));
        this->progress.ctx = b;
        this->progress.report = b == nullptr ? nullptr : +[](void *ctx, const emo_progress_info *info) -> std::int32_t {
            return detail::call_cancellable<Fn>(ctx, *info);
        };
    }

  protected:
    using options<C>::options;
};

} // namespace EMO_CPP_MODE
} // namespace emo
#endif
