/* SPDX-License-Identifier: Apache-2.0 */
/** The runtime, its hooks and its devices. */
#ifndef EMO_CPP_RUNTIME_HPP
#define EMO_CPP_RUNTIME_HPP

#include <emo/cpp/handle.hpp>

namespace emo {
inline namespace EMO_CPP_MODE {

struct device_info : emo_device_info {
    device_info() noexcept : emo_device_info(EMO_DEVICE_INFO_INIT) {}
};

/** One loop that the host's executor runs: piece(index, worker) for every index below count. */
class parallel_loop {
  public:
    parallel_loop(std::size_t count, emo_task_fn fn, void *task) noexcept : count_(count), fn_(fn), task_(task) {}
    std::size_t count() const noexcept { return count_; }
    void operator()(std::size_t index, std::size_t worker) const { fn_(task_, index, worker); }

  private:
    std::size_t count_;
    emo_task_fn fn_;
    void *task_;
};

class runtime_options : public options<emo_runtime_options> {
  public:
    runtime_options() noexcept : options(EMO_RUNTIME_OPTIONS_INIT) {}
    /** f(emo_log_level, std::string_view); any thread. What it throws is dropped. */
    template <class F>
    void on_log(emo_log_level level, F &&f) {
        using Fn = std::decay_t<F>;
        auto *b = hold_hook(std::forward<F>(f));
        log.ctx = b;
        log.level = level;
        log.log = b == nullptr ? nullptr : +[](void *ctx, emo_log_level at, const char *message) {
            detail::shielded(0,
                             [&] { return static_cast<detail::box<Fn> *>(ctx)->fn(at, std::string_view(message)), 0; });
        };
    }
    /**
     * Memory: an object with void *allocate(size, alignment), which returns nullptr where there is none (or throws,
     * which is the same), and deallocate(ptr, size, alignment), which must not throw. Any thread.
     */
    template <class A>
    void use_allocator(A &&a) {
        using Fn = std::decay_t<A>;
        auto *b = hold_hook(std::forward<A>(a));
        allocator.ctx = b;
        allocator.alloc = b == nullptr ? nullptr : +[](void *ctx, std::size_t size, std::size_t alignment) -> void * {
            void *const none = nullptr;
            return detail::shielded(
                none, [&]() -> void * { return static_cast<detail::box<Fn> *>(ctx)->fn.allocate(size, alignment); });
        };
        allocator.free = b == nullptr ? nullptr : +[](void *ctx, void *ptr, std::size_t size, std::size_t alignment) {
            static_cast<detail::box<Fn> *>(ctx)->fn.deallocate(ptr, size, alignment);
        };
    }
    /** Parallel work: f(const parallel_loop &) calls the loop for every index and returns when all are finished;
     * workers are below `concurrency`. It must not throw: pieces would be missing (std::terminate). */
    template <class F>
    void use_executor(std::size_t concurrency, F &&f) {
        using Fn = std::decay_t<F>;
        auto *b = hold_hook(std::forward<F>(f));
        executor.ctx = b;
        executor.concurrency = concurrency;
        executor.parallel_for = b == nullptr ? nullptr : +[](void *ctx, std::size_t count, emo_task_fn fn, void *task) {
            const auto all = [&]() noexcept {
                static_cast<detail::box<Fn> *>(ctx)->fn(parallel_loop(count, fn, task));
            };
            all();
        };
    }
};

/** What all other objects share: memory, log, threads, devices. */
class runtime : public handle<emo_runtime, emo_runtime_release> {
  public:
    using handle::handle;
    [[nodiscard]] static outcome<runtime> create(const runtime_options &o = {}) {
        emo_runtime *raw = nullptr;
        emo_error e = EMO_ERROR_INIT;
        emo_status status = EMO_E_OUT_OF_MEMORY;
        if (o.complete())
            status = emo_runtime_create(&o, &raw, &e);
        else
            e = detail::no_memory().raw();
        return detail::finish(status, e, runtime(raw, o.hooks_ref(), {}));
    }
    std::int32_t threads() const noexcept { return emo_runtime_threads(get()); }
    emo_isa isa() const noexcept { return emo_runtime_isa(get()); }
    outcome<void> load_backend(cstr path) {
        return detail::run([&](emo_error *e) { return emo_runtime_load_backend(get(), path.get(), e); });
    }
    std::int32_t devices() const noexcept { return emo_device_count(get()); }
    [[nodiscard]] outcome<device_info> device(std::int32_t index) const {
        return detail::fill(
            device_info(), [&](device_info *info, emo_error *e) { return emo_device_get_info(get(), index, info, e); });
    }
};

} // namespace EMO_CPP_MODE
} // namespace emo
#endif
