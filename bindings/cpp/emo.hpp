/* SPDX-License-Identifier: Apache-2.0 */
/**
 * libemo for C++17: RAII over the C API, header-only. Every handle is a move-only class, every call a member of it.
 *
 * Two forms, chosen by the compiler's options. With exceptions a failed call throws emo::exception and the others
 * return their value. With -fno-exceptions (or EMO_CPP_EXCEPTIONS defined as 0) every call that can fail returns an
 * emo::result, which holds the value or an emo::error; nothing here throws then, and RTTI is not needed either. The two
 * live in inline namespaces of their own, so that one program may hold object files of both.
 *
 * Options are the structs of the C API under the same names, with their defaults filled in, and take lambdas for
 * callbacks. A lambda lives as long as the object that may call it. What it throws does not cross C: the call it runs
 * in is cancelled and then throws it.
 */
#ifndef EMO_HPP
#define EMO_HPP

#include <emo/cpp/base.hpp>
#include <emo/cpp/comm.hpp>
#include <emo/cpp/data.hpp>
#include <emo/cpp/handle.hpp>
#include <emo/cpp/hooks.hpp>
#include <emo/cpp/mask.hpp>
#include <emo/cpp/model.hpp>
#include <emo/cpp/pool.hpp>
#include <emo/cpp/router.hpp>
#include <emo/cpp/runtime.hpp>
#include <emo/cpp/session.hpp>
#include <emo/cpp/source.hpp>
#include <emo/cpp/subset.hpp>
#include <emo/cpp/task.hpp>
#include <emo/cpp/tokenizer.hpp>
#include <emo/cpp/train.hpp>

#endif
