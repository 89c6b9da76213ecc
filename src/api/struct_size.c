/* SPDX-License-Identifier: Apache-2.0 */
/* The sizes of the public structs by name, for bindings that check their own layouts at run time. */
#include <stddef.h>
#include <string.h>

#include <emo/emo.h>
#include <emo/sys/comm.h>

#define STRUCTS(X)                                                                                                     \
    X(emo_allocator)                                                                                                   \
    X(emo_budget)                                                                                                      \
    X(emo_choice_item)                                                                                                 \
    X(emo_comm_vtable)                                                                                                 \
    X(emo_dataset_options)                                                                                             \
    X(emo_decoder_options)                                                                                             \
    X(emo_device_info)                                                                                                 \
    X(emo_document)                                                                                                    \
    X(emo_error)                                                                                                       \
    X(emo_eval_options)                                                                                                \
    X(emo_eval_result)                                                                                                 \
    X(emo_executor)                                                                                                    \
    X(emo_export_info)                                                                                                 \
    X(emo_export_options)                                                                                              \
    X(emo_log_sink)                                                                                                    \
    X(emo_mask_options)                                                                                                \
    X(emo_merge_options)                                                                                               \
    X(emo_model_create_options)                                                                                        \
    X(emo_model_info)                                                                                                  \
    X(emo_model_load_options)                                                                                          \
    X(emo_model_save_options)                                                                                          \
    X(emo_progress)                                                                                                    \
    X(emo_progress_info)                                                                                               \
    X(emo_prune_options)                                                                                               \
    X(emo_router_batch)                                                                                                \
    X(emo_router_options)                                                                                              \
    X(emo_routing)                                                                                                     \
    X(emo_runtime_options)                                                                                             \
    X(emo_select_options)                                                                                              \
    X(emo_session_options)                                                                                             \
    X(emo_source_vtable)                                                                                               \
    X(emo_stats_options)                                                                                               \
    X(emo_step_metrics)                                                                                                \
    X(emo_task_column)                                                                                                 \
    X(emo_task_group)                                                                                                  \
    X(emo_task_info)                                                                                                   \
    X(emo_task_item)                                                                                                   \
    X(emo_task_run_options)                                                                                            \
    X(emo_task_score)                                                                                                  \
    X(emo_task_set_options)                                                                                            \
    X(emo_text_document)                                                                                               \
    X(emo_text_reader)                                                                                                 \
    X(emo_tokenizer_encode_options)                                                                                    \
    X(emo_tokenizer_train_options)                                                                                     \
    X(emo_train_options)                                                                                               \
    X(emo_train_profile_entry)

size_t emo_struct_size(const char *name) {
    static const struct {
        const char *name;
        size_t size;
    } table[] = {
#define ROW(type) {#type, sizeof(type)},
        STRUCTS(ROW)
#undef ROW
    };
    for (size_t i = 0; name != NULL && i < sizeof table / sizeof table[0]; i++)
        if (strcmp(table[i].name, name) == 0)
            return table[i].size;
    return 0;
}
