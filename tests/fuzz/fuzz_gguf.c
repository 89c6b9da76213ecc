/* SPDX-License-Identifier: Apache-2.0 */
/* A GGUF file as a model: what loads must compute, and must come out again as it went in. */
#include "fuzz/fuzz.h"
#include "io/gguf.h"

static void use(emo_model *model) {
    emo_error err = EMO_ERROR_INIT;
    emo_model_info info = EMO_MODEL_INFO_INIT;
    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    emo_session *session = NULL;
    emo_state state = EMO_STATE_PENDING;
    const int32_t id = 0;
    info.non_finite = 1;
    FUZZ_OK(emo_model_get_info(model, &info, &err));
    FUZZ_CHECK(info.loaded == info.parameters);
    options.max_tokens = 2;
    if (!FUZZ_CALL(emo_session_create(model, &options, &session, &err)))
        return;
    if (FUZZ_CALL(emo_session_append_tokens(session, 0, &id, 1, &err)))
        (void)FUZZ_CALL(emo_session_advance(session, NULL, &state, &err));
    emo_session_release(session);
}

void fuzz_gguf(const uint8_t *data, size_t size) {
    emo_runtime *rt = fuzz_runtime();
    emo_error err = EMO_ERROR_INIT;
    emo_source *source = NULL;
    emo__gguf *g = NULL;
    emo_model *model = NULL, *back = NULL;
    FUZZ_OK(emo_source_from_memory(rt, size > 0 ? data : (const uint8_t *)"", size, &source, &err));
    if (FUZZ_CALL(emo__gguf_open(rt, source, &g, &err))) {
        for (size_t i = 0; i < emo__gguf_count(g); i++) {
            const emo__gguf_tensor *t = emo__gguf_at(g, i);
            FUZZ_CHECK(t->offset <= size && t->bytes <= size - t->offset);
            FUZZ_CHECK(emo__gguf_find(g, t->name) == t);
        }
        emo__gguf_close(g);
    }
    emo_status status = emo_model_load_sources(rt, NULL, 0, &source, 1, NULL, &model, &err);
    emo_source_release(source);
    if (!FUZZ_CALL(status))
        return;
    use(model);
    char path[1024];
    (void)snprintf(path, sizeof path, "%s", fuzz_file("out.gguf", NULL, 0));
    if (FUZZ_CALL(emo_model_export(model, path, NULL, NULL, &err))) {
        FUZZ_OK(emo_model_load_path(rt, path, NULL, &back, &err));
        emo_model_release(back);
    }
    emo_model_release(model);
}
