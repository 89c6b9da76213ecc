/* SPDX-License-Identifier: Apache-2.0 */
/** Errors, results and spans: what every other header of the C++ binding builds on. */
#ifndef EMO_CPP_BASE_HPP
#define EMO_CPP_BASE_HPP

#include <emo/emo.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

/** 1: failures throw; 0: they are returned. By default what the compiler was told. */
#ifndef EMO_CPP_EXCEPTIONS
#if defined(__cpp_exceptions)
#define EMO_CPP_EXCEPTIONS 1
#else
#define EMO_CPP_EXCEPTIONS 0
#endif
#endif
#if EMO_CPP_EXCEPTIONS
#include <exception>
#define EMO_CPP_MODE throwing
#else
#define EMO_CPP_MODE returning
#endif

namespace emo {
inline namespace EMO_CPP_MODE {

/** What went wrong: the emo_error that a call filled in. */
class error {
  public:
    error() noexcept = default;
    error(emo_status code, const emo_error &detail) noexcept : raw_(detail) { raw_.code = code; }
    emo_status code() const noexcept { return raw_.code; }
    emo_error_domain domain() const noexcept { return raw_.domain; }
    std::int64_t number() const noexcept { return raw_.number; }
    const char *message() const noexcept { return raw_.message; }
    /** Such as "EMO_E_IO". */
    const char *name() const noexcept { return emo_status_name(raw_.code); }
    const emo_error &raw() const noexcept { return raw_; }

  private:
    emo_error raw_ = EMO_ERROR_INIT;
};

/** A value or an error. Calls return it where exceptions are off; it may be used anywhere. */
template <class T>
class [[nodiscard]] result {
  public:
    using value_type = T;
    result(T value) noexcept(std::is_nothrow_move_constructible_v<T>) : value_(std::move(value)) {}
    result(const error &failure) noexcept : error_(failure) {}
    bool has_value() const noexcept { return value_.has_value(); }
    explicit operator bool() const noexcept { return value_.has_value(); }
    /** Only where there is a value. */
    T &value() &noexcept { return *value_; }
    const T &value() const &noexcept { return *value_; }
    T &&value() &&noexcept { return std::move(*value_); }
    T &operator*() &noexcept { return *value_; }
    const T &operator*() const &noexcept { return *value_; }
    T &&operator*() &&noexcept { return std::move(*value_); }
    T *operator->() noexcept { return &*value_; }
    const T *operator->() const noexcept { return &*value_; }
    template <class U>
    T value_or(U &&other) const & {
        return value_ ? *value_ : static_cast<T>(std::forward<U>(other));
    }
    const emo::error &error() const noexcept { return error_; }
    emo_status code() const noexcept { return error_.code(); }

  private:
    std::optional<T> value_;
    emo::error error_;
};
template <>
class [[nodiscard]] result<void> {
  public:
    result() noexcept = default;
    result(const error &failure) noexcept : error_(failure) {}
    bool has_value() const noexcept { return error_.code() == EMO_OK; }
    explicit operator bool() const noexcept { return has_value(); }
    const emo::error &error() const noexcept { return error_; }
    emo_status code() const noexcept { return error_.code(); }

  private:
    emo::error error_;
};

#if EMO_CPP_EXCEPTIONS
/** What a failed call throws. */
class exception : public std::exception {
  public:
    explicit exception(const error &failure) noexcept : error_(failure) {}
    const char *what() const noexcept override { return error_.message(); }
    const emo::error &error() const noexcept { return error_; }
    emo_status code() const noexcept { return error_.code(); }

  private:
    emo::error error_;
};
/** What a call that can fail returns: its value, or nothing at all when it throws. */
template <class T>
using outcome = T;
#else
/** What a call that can fail returns: its value or an error. */
template <class T>
using outcome = result<T>;
#endif

/** A run of elements somebody else owns; a small part of C++20's. */
template <class T>
class span {
  public:
    using element_type = T;
    using value_type = std::remove_cv_t<T>;
    constexpr span() noexcept = default;
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <std::size_t N>
    constexpr span(T (&array)[N]) noexcept : data_(array), size_(N) {}
    template <class C, class P = decltype(std::declval<C &>().data()), class S = decltype(std::declval<C &>().size()),
              class = std::enable_if_t<std::is_convertible_v<std::remove_pointer_t<P> (*)[], T (*)[]>>>
    constexpr span(C &&container) noexcept : data_(container.data()), size_(container.size()) {}
    /** For constants, and only as an argument: the list ends with the full expression. */
    template <class U = T, class = std::enable_if_t<std::is_const_v<U>>>
    constexpr span(std::initializer_list<value_type> list) noexcept : span(list.begin(), list.size()) {}
    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T &operator[](std::size_t i) const noexcept { return data_[i]; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/** A NUL-terminated argument: a path, a name, a text. */
class cstr {
  public:
    cstr(const char *text) noexcept : text_(text) {}
    cstr(const std::string &text) noexcept : text_(text.c_str()) {}
    const char *get() const noexcept { return text_; }

  private:
    const char *text_;
};

inline const char *status_name(emo_status status) noexcept { return emo_status_name(status); }
inline const char *status_text(emo_status status) noexcept { return emo_status_text(status); }
inline const char *dtype_name(emo_dtype dtype) noexcept { return emo_dtype_name(dtype); }
inline const char *isa_name(emo_isa isa) noexcept { return emo_isa_name(isa); }
/** Of the library that is linked; EMO_VERSION_STRING is that of the headers. */
inline std::int32_t version_number() noexcept { return emo_version_number(); }
/** Of a public struct in the library that is linked; 0 for a name that is none. */
inline std::size_t struct_size(cstr name) noexcept { return emo_struct_size(name.get()); }
inline const char *version_string() noexcept { return emo_version_string(); }

} // namespace EMO_CPP_MODE
} // namespace emo
#endif
