/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file emo.h
 * @brief Everything a program needs.
 */
#ifndef EMO_EMO_H
#define EMO_EMO_H

#include <emo/base.h>
#include <emo/cache.h>
#include <emo/comm.h>
#include <emo/data.h>
#include <emo/device.h>
#include <emo/eval.h>
#include <emo/export.h>
#include <emo/hooks.h>
#include <emo/mask.h>
#include <emo/model.h>
#include <emo/pool.h>
#include <emo/router.h>
#include <emo/runtime.h>
#include <emo/select.h>
#include <emo/session.h>
#include <emo/source.h>
#include <emo/stats.h>
#include <emo/task.h>
#include <emo/tokenizer.h>
#include <emo/train.h>
#include <emo/version.h>

#endif
