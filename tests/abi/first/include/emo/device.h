/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file device.h
 * @brief The devices that a runtime can compute on, and the plug-ins that bring more of them.
 */
#ifndef EMO_DEVICE_H
#define EMO_DEVICE_H

#include <emo/runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What a device is. */
typedef int32_t emo_device_kind;
enum {
    EMO_DEVICE_OTHER = 0,
    EMO_DEVICE_CPU = 1,
    EMO_DEVICE_CUDA = 16 /**< an NVIDIA GPU */
};

/** A device. Filled by emo_device_get_info(); the caller sets struct_size (use the INIT macro). */
typedef struct emo_device_info {
    uint32_t struct_size;
    emo_device_kind kind;
    int64_t memory;       /**< bytes; 0: not known */
    char backend[32];     /**< the back end's name: "cpu", "cuda" */
    char name[64];        /**< the device's name, such as "NVIDIA H100"; for the CPU its instruction-set level */
    int32_t n_dtypes;     /**< how many of `dtypes` are filled */
    int32_t reserved;     /**< 0 */
    emo_dtype dtypes[10]; /**< weights that the device computes with */
} emo_device_info;
#define EMO_DEVICE_INFO_INIT                                                                                           \
    {                                                                                                                  \
        sizeof(emo_device_info), 0, 0, {0}, {0}, 0, 0, { 0 }                                                           \
    }

/**
 * Loads a back-end plug-in (sys/backend.h) and opens every device it finds; they follow the devices that are there. The
 * library stays in the process until it ends, whether this call succeeds or not: load only files that you trust.
 * @param path absolute: there is no search path.
 * @return EMO_E_INVALID_ARGUMENT (a relative path), EMO_E_NOT_FOUND (no such file, or no device), EMO_E_FORMAT (no
 *         shared library for this machine, or none of ours), EMO_E_UNSUPPORTED (built for another version of the
 *         operator table), EMO_E_EXISTS (a back end of that name is loaded), EMO_E_BACKEND (the plug-in failed),
 *         EMO_E_LIMIT (more than 16 devices), EMO_E_OUT_OF_MEMORY. Any thread.
 */
EMO_API EMO_MUST_CHECK emo_status emo_runtime_load_backend(emo_runtime *runtime, const char *path, emo_error *err);

/** Number of devices, at least 1: device 0 is the CPU. 0 for NULL. Any thread. */
EMO_API int32_t emo_device_count(const emo_runtime *runtime);

/**
 * What device `index` is.
 * @return EMO_E_RANGE (no such device), EMO_E_INVALID_ARGUMENT, EMO_E_BACKEND (the device does not answer). Any thread.
 */
EMO_API EMO_MUST_CHECK emo_status emo_device_get_info(const emo_runtime *runtime, int32_t index, emo_device_info *info,
                                                      emo_error *err);

#ifdef __cplusplus
}
#endif
#endif
