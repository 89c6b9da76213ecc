/* SPDX-License-Identifier: Apache-2.0 */
/** Where files come from: a path, memory, or the host's own storage. */
#ifndef EMO_CPP_SOURCE_HPP
#define EMO_CPP_SOURCE_HPP

#include <emo/cpp/runtime.hpp>

namespace emo {
inline namespace EMO_CPP_MODE {

class source : public handle<emo_source, emo_source_release> {
  public:
    using handle::handle;
    [[nodiscard]] static outcome<source> open(const runtime &rt, cstr path) {
        return detail::make<source>(
            rt, [&](emo_source **out, emo_error *e) { return emo_source_open_path(rt.get(), path.get(), out, e); });
    }
    /** The bytes stay the caller's and must outlive the source and what is made from it. */
    [[nodiscard]] static outcome<source> from_memory(const runtime &rt, const void *data, std::size_t size) {
        return detail::make<source>(
            rt, [&](emo_source **out, emo_error *e) { return emo_source_from_memory(rt.get(), data, size, out, e); });
    }
    /**
     * Storage of the host's: an object with std::uint64_t size() and bool read(offset, void *data, size), which may be
     * called from several threads at once; false or an exception is EMO_E_IO. The source owns it.
     */
    template <class S>
    [[nodiscard]] static outcome<source> from_storage(const runtime &rt, S &&storage) {
        using B = detail::box<std::decay_t<S>>;
        auto *b = new (std::nothrow) B(std::decay_t<S>(std::forward<S>(storage)));
        emo_source *raw = nullptr;
        emo_error e = detail::no_memory().raw();
        emo_status status = EMO_E_OUT_OF_MEMORY;
        if (b != nullptr) {
            emo_source_vtable table = EMO_SOURCE_VTABLE_INIT;
            table.size = [](void *ctx, std::uint64_t *size) -> emo_status {
                return detail::shielded(emo_status{EMO_E_IO}, [&]() -> emo_status {
                    *size = static_cast<B *>(ctx)->fn.size();
                    return EMO_OK;
                });
            };
            table.read_at = [](void *ctx, std::uint64_t offset, void *data, std::size_t size) -> emo_status {
                return detail::shielded(emo_status{EMO_E_IO}, [&]() -> emo_status {
                    return static_cast<B *>(ctx)->fn.read(offset, data, size) ? EMO_OK : EMO_E_IO;
                });
            };
            table.release = [](void *ctx) { static_cast<B *>(ctx)->drop(); };
            status = emo_source_create(rt.get(), &table, b, &raw, &e);
            if (status != EMO_OK)
                b->drop();
        }
        return detail::finish(status, e, source(raw, rt.runtime_hooks(), {}));
    }
    std::uint64_t size() const noexcept { return emo_source_size(get()); }
    outcome<void> read_at(std::uint64_t offset, void *data, std::size_t bytes) const {
        return detail::run([&](emo_error *e) { return emo_source_read_at(get(), offset, data, bytes, e); });
    }
    /** nullptr when it cannot be mapped. */
    const void *map() const noexcept { return emo_source_map(get()); }
};

} // namespace EMO_CPP_MODE
} // namespace emo
#endif
