/* SPDX-License-Identifier: Apache-2.0 */
/* Two builds of the library in one process: this program is linked to one and opens another version by its path. Each
 * must call itself only, and both must work side by side. usage: two_builds OTHER_LIBRARY VERSION */
#define _GNU_SOURCE
#include <emo/emo.h>

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char config[] = "{\"model_type\":\"emo\",\"vocab_size\":257,\"hidden_size\":16,\"intermediate_size\":8,"
                             "\"num_hidden_layers\":2,\"num_attention_heads\":2,\"max_position_embeddings\":64,"
                             "\"num_experts\":9,\"num_shared_experts\":1,\"num_experts_per_tok\":3,"
                             "\"eos_token_id\":256,\"pad_token_id\":256}";

typedef struct library {
    const char *(*version)(void);
    const char *(*status_name)(emo_status);
    emo_status (*runtime)(const emo_runtime_options *, emo_runtime **, emo_error *);
    void (*runtime_release)(emo_runtime *);
    emo_status (*model)(emo_runtime *, const char *, size_t, const emo_model_create_options *, emo_model **,
                        emo_error *);
    void (*model_release)(emo_model *);
    emo_status (*session)(emo_model *, const emo_session_options *, emo_session **, emo_error *);
    emo_status (*append)(emo_session *, int32_t, const int32_t *, size_t, emo_error *);
    emo_status (*advance)(emo_session *, const emo_budget *, emo_state *, emo_error *);
    size_t (*generated)(const emo_session *, int32_t, const int32_t **, const float **);
    void (*session_release)(emo_session *);
    int32_t tokens[16];
    int failed;
} library;

/* A little life in one of them, ten times. */
static void *live(void *arg) {
    library *l = arg;
    for (int i = 0; i < 10 && !l->failed; i++) {
        emo_error err = EMO_ERROR_INIT;
        emo_runtime *rt = NULL;
        emo_model *model = NULL;
        emo_session *session = NULL;
        emo_runtime_options ro = EMO_RUNTIME_OPTIONS_INIT;
        emo_session_options so = EMO_SESSION_OPTIONS_INIT;
        emo_state state = EMO_STATE_PENDING;
        const int32_t prompt[] = {10, 20, 30};
        const int32_t *tokens = NULL;
        ro.threads = 2;
        so.max_tokens = 16;
        so.ignore_eos = 1;
        EMO_TRY(l->runtime(&ro, &rt, &err));
        EMO_TRY(l->model(rt, config, sizeof config - 1, NULL, &model, &err));
        EMO_TRY(l->session(model, &so, &session, &err));
        EMO_TRY(l->append(session, 0, prompt, 3, &err));
        while (state != EMO_STATE_DONE)
            EMO_TRY(l->advance(session, NULL, &state, &err));
        if (l->generated(session, 0, &tokens, NULL) == 16)
            memcpy(l->tokens, tokens, sizeof l->tokens);
        else
            err.code = EMO_E_INTERNAL;
    done:
        l->session_release(session);
        l->model_release(model);
        l->runtime_release(rt);
        if (err.code != EMO_OK) {
            fprintf(stderr, "%s\n", err.message);
            l->failed = 1;
        }
    }
    return NULL;
}

/* Object pointers become function pointers the way POSIX writes it. */
#define FIND(field, name)                                                                                              \
    do {                                                                                                               \
        void *found = dlsym(handle, name);                                                                             \
        Dl_info info;                                                                                                  \
        if (found == NULL || dladdr(found, &info) == 0 || strcmp(info.dli_fname, argv[1]) != 0)                        \
            return fprintf(stderr, "%s is not found in %s\n", name, argv[1]), 1;                                       \
        memcpy(&other.field, &found, sizeof found);                                                                    \
    } while (0)

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    void *handle = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL)
        return fprintf(stderr, "%s\n", dlerror()), 1;
    library other = {0};
    FIND(version, "emo_version_string");
    FIND(status_name, "emo_status_name");
    FIND(runtime, "emo_runtime_create");
    FIND(runtime_release, "emo_runtime_release");
    FIND(model, "emo_model_create_json");
    FIND(model_release, "emo_model_release");
    FIND(session, "emo_session_create");
    FIND(append, "emo_session_append_tokens");
    FIND(advance, "emo_session_advance");
    FIND(generated, "emo_session_generated");
    FIND(session_release, "emo_session_release");
    library own = {emo_version_string,
                   emo_status_name,
                   emo_runtime_create,
                   emo_runtime_release,
                   emo_model_create_json,
                   emo_model_release,
                   emo_session_create,
                   emo_session_append_tokens,
                   emo_session_advance,
                   emo_session_generated,
                   emo_session_release,
                   {0},
                   0};
    if (strcmp(other.version(), argv[2]) != 0 || strcmp(own.version(), argv[2]) == 0)
        return fprintf(stderr, "versions %s and %s\n", own.version(), other.version()), 1;
    pthread_t thread;
    if (pthread_create(&thread, NULL, live, &other) != 0)
        return 1;
    live(&own);
    pthread_join(thread, NULL);
    if (own.failed || other.failed || memcmp(own.tokens, other.tokens, sizeof own.tokens) != 0)
        return fprintf(stderr, "they do not work side by side\n"), 1;
    printf("%s and %s side by side\n", own.version(), other.version());
    return 0;
}
