/* SPDX-License-Identifier: Apache-2.0 */
/* Reading documents: formats, domains, broken input, the cache, filters, multiple-choice items. */
#include <emo/data.h>
#include <sys/stat.h>

#include "base/utf8.h"
#include "data/dataset.h"
#include "io/files.h"
#include "support/folder.h"

static emo_runtime *rt;
static emo_tokenizer *tok; /* bytes; 256 is the end of text */

static emo_status open_one(const char *path, const emo_dataset_options *opt, emo_dataset **out, emo_error *err) {
    return emo_dataset_open(rt, &path, 1, tok, opt, out, err);
}

/* Documents as "domain:text/prompt;" with the byte tokenizer's ids as characters. */
static const char *show(const emo_dataset *ds) {
    static char text[4096];
    size_t used = 0;
    emo_error err = EMO_ERROR_INIT;
    for (int64_t i = 0; i < emo_dataset_count(ds); i++) {
        emo_document doc;
        EXPECT_OK(emo_dataset_document(ds, i, &doc, &err));
        used += (size_t)snprintf(text + used, sizeof text - used, "%s:", emo_dataset_domain_name(ds, doc.domain));
        for (int64_t t = 0; t < doc.count; t++)
            text[used++] = (char)doc.tokens[t];
        used += (size_t)snprintf(text + used, sizeof text - used, "/%d;", (int)doc.prompt_tokens);
        assert_true(used + 256 < sizeof text);
    }
    text[used] = '\0';
    return text;
}

/* The same documents as text, read one by one. */
static void expect_texts(const char *path, const emo_dataset_options *opt, const emo_dataset *ds) {
    emo_error err = EMO_ERROR_INIT;
    emo_texts *texts = NULL;
    emo_text_document text;
    emo_document doc;
    EXPECT_OK(emo_texts_open(rt, &path, 1, opt, &texts, &err));
    for (int64_t i = 0; i < emo_dataset_count(ds); i++) {
        EXPECT_OK(emo_dataset_document(ds, i, &doc, &err));
        EXPECT_OK(emo_texts_next(texts, &text, &err));
        assert_non_null(text.text);
        assert_int_equal(text.length, doc.bytes);
        assert_int_equal(text.prompt_bytes, doc.prompt_tokens);
        assert_string_equal(text.domain, emo_dataset_domain_name(ds, doc.domain));
        for (int64_t t = 0; t < doc.count; t++)
            assert_int_equal((unsigned char)text.text[t], doc.tokens[t]);
    }
    for (int again = 0; again < 2; again++) {
        EXPECT_OK(emo_texts_next(texts, &text, &err));
        assert_null(text.text);
    }
    assert_int_equal(emo_texts_count(texts), emo_dataset_count(ds));
    assert_int_equal(emo_texts_bytes(texts), emo_dataset_bytes(ds));
    assert_int_equal(emo_texts_skipped(texts), emo_dataset_skipped(ds));
    emo_texts_release(texts);
}

static void json_lines(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_dataset *ds = NULL;
    static const char text[] = "{\"text\": \"one\", \"domain\": \"law\", \"id\": 7}\n"
                               "\n"
                               "{\"text\": \"\"}\n"
                               "{\"text\": \"tw\\u00f6\"}\r\n"
                               "{\"prompt\": \"Q \", \"completion\": \"A\", \"domain\": \"law\"}\n"
                               "{\"text\": \"end\", \"domain\": null}";
    for (int gz = 0; gz < 2; gz++) {
        const char *path =
            gz ? test_append_gzip("a.jsonl.gz", text, sizeof text - 1) : test_write("a.jsonl", text, sizeof text - 1);
        EXPECT_OK(open_one(path, NULL, &ds, &err));
        assert_string_equal(show(ds), "law:one/0;:tw\xc3\xb6/0;law:Q A/2;:end/0;");
        assert_int_equal(emo_dataset_tokens(ds), 3 + 4 + 3 + 3);
        assert_int_equal(emo_dataset_bytes(ds), 13);
        emo_document pair;
        EXPECT_OK(emo_dataset_document(ds, 2, &pair, &err));
        assert_int_equal(pair.bytes, 3);
        assert_int_equal(pair.prompt_bytes, 2);
        assert_int_equal(emo_dataset_eos(ds), 256);
        assert_int_equal(emo_dataset_vocab_size(ds), 257);
        assert_int_equal(emo_dataset_domains(ds), 2);
        expect_texts(path, NULL, ds);
        emo_dataset_release(ds);
    }
    emo_dataset_options opt = EMO_DATASET_OPTIONS_INIT;
    opt.domain = "law";
    opt.max_documents = 1;
    EXPECT_OK(open_one(test_path("a.jsonl"), &opt, &ds, &err));
    assert_string_equal(show(ds), "law:one/0;");
    expect_texts(test_path("a.jsonl"), &opt, ds);
    emo_dataset_release(ds);
    opt.domain = "none such";
    EXPECT_STATUS(open_one(test_path("a.jsonl"), &opt, &ds, &err), EMO_E_NOT_FOUND, "none such");
    assert_null(ds);
}

static void broken_lines_are_named_or_skipped(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static const struct {
        const char *line;
        const char *words;
    } bad[] = {
        {"{\"text\": \"x\"", "b.jsonl:2: invalid JSON"},
        {"{\"text\": 5}", "b.jsonl:2: needs a string"},
        {"{\"prompt\": \"x\"}", "b.jsonl:2: needs a string"},
        {"{\"prompt\": 1, \"completion\": \"x\"}", "b.jsonl:2: needs a string"},
        {"[1]", "b.jsonl:2: must be a JSON object"},
        {"{\"text\": \"\xff\"}", "b.jsonl:2: invalid JSON"},
        {"{\"text\": \"x\", \"domain\": 3}", "b.jsonl:2: \"domain\""},
        {"{\"text\": \"\\ud800\"}", "b.jsonl:2: invalid JSON"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[256];
        emo_dataset *ds = NULL;
        int n = snprintf(text, sizeof text, "{\"text\": \"a\"}\n%s\n{\"text\": \"c\"}\n", bad[i].line);
        const char *path = test_write("b.jsonl", text, (size_t)n);
        EXPECT_STATUS(open_one(path, NULL, &ds, &err), EMO_E_FORMAT, bad[i].words);
        emo_dataset_options opt = EMO_DATASET_OPTIONS_INIT;
        opt.skip_broken = 1;
        EXPECT_OK(open_one(path, &opt, &ds, &err));
        assert_string_equal(show(ds), ":a/0;:c/0;");
        assert_int_equal(emo_dataset_skipped(ds), 1);
        expect_texts(path, &opt, ds);
        emo_dataset_release(ds);
    }
    size_t size = 0;
    emo_dataset *ds = NULL;
    unsigned char *whole = test_read(test_append_gzip("t.jsonl.gz", "{\"text\": \"a\"}\n", 14), &size);
    EXPECT_STATUS(open_one(test_write("t2.jsonl.gz", whole, size - 4), NULL, &ds, &err), EMO_E_FORMAT, "gzip");
    free(whole);
    EXPECT_STATUS(open_one(test_write("bad.txt", "a\xc0\x80", 3), NULL, &ds, &err), EMO_E_FORMAT, "UTF-8");
    EXPECT_STATUS(open_one(test_write("empty.jsonl", "\n", 1), NULL, &ds, &err), EMO_E_FORMAT, "no documents");
    EXPECT_STATUS(open_one(test_path("gone.jsonl"), NULL, &ds, &err), EMO_E_NOT_FOUND, "gone.jsonl");
}

static void texts_go_straight_to_the_trainer(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_texts *texts = NULL;
    emo_text_reader reader;
    emo_tokenizer *trained = NULL;
    static const char lines[] = "{\"text\": \"abab abab\"}\n{\"text\": \"abab\"}\n{\"text\": 5}\n";
    const char *path = test_write("train.jsonl", lines, sizeof lines - 1);
    emo_dataset_options opt = EMO_DATASET_OPTIONS_INIT;
    opt.skip_broken = 1;
    EXPECT_OK(emo_texts_open(rt, &path, 1, &opt, &texts, &err));
    EXPECT_OK(emo_texts_reader(texts, &reader, &err));
    EXPECT_OK(emo_tokenizer_train(rt, NULL, &reader, &trained, &err));
    assert_true(emo_tokenizer_token_to_id(trained, "abab", 4) > 255);
    assert_int_equal(emo_texts_count(texts), 2);
    assert_int_equal(emo_texts_skipped(texts), 1);
    emo_tokenizer_release(trained);
    emo_texts_release(texts);
    EXPECT_OK(emo_texts_open(rt, &path, 1, NULL, &texts, &err)); /* the broken line is named */
    EXPECT_OK(emo_texts_reader(texts, &reader, &err));
    EXPECT_STATUS(emo_tokenizer_train(rt, NULL, &reader, &trained, &err), EMO_E_FORMAT, "train.jsonl:3");
    emo_texts_release(texts);
    path = test_write("ids.npy", "x", 1);
    EXPECT_OK(emo_texts_open(rt, &path, 1, NULL, &texts, &err));
    emo_text_document text;
    EXPECT_STATUS(emo_texts_next(texts, &text, &err), EMO_E_UNSUPPORTED, "token ids");
    emo_texts_release(texts);
    opt.max_documents = -1;
    EXPECT_STATUS(emo_texts_open(rt, &path, 1, &opt, &texts, &err), EMO_E_RANGE, "max_documents");
    opt.max_documents = 0;
    opt.skip_broken = 2;
    EXPECT_STATUS(emo_texts_open(rt, &path, 1, &opt, &texts, &err), EMO_E_RANGE, "skip_broken");
    path = test_path("gone.jsonl");
    EXPECT_STATUS(emo_texts_open(rt, &path, 1, NULL, &texts, &err), EMO_E_NOT_FOUND, "gone.jsonl");
}

static void folders_give_domains(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_dataset *ds = NULL;
    (void)test_write("docs/top.txt", "top\r\n", 5);
    (void)test_write("docs/law/b.txt", "B", 1);
    (void)test_write("docs/law/a.txt", "A", 1);
    (void)test_write("docs/law/blank.txt", " \n", 2);
    (void)test_write("docs/code/x/deep.jsonl", "{\"text\": \"D\"}\n{\"text\": \"E\", \"domain\": \"own\"}\n", 45);
    EXPECT_OK(open_one(test_path("docs"), NULL, &ds, &err));
    assert_string_equal(show(ds), "code:D/0;own:E/0;law:A/0;law:B/0;:top\r\n/0;");
    expect_texts(test_path("docs"), NULL, ds);
    emo_dataset_release(ds);
    assert_int_equal(mkdir(test_path("nothing"), 0777), 0);
    EXPECT_STATUS(open_one(test_path("nothing"), NULL, &ds, &err), EMO_E_FORMAT, "no files");
}

static void token_files_are_cut_at_the_end_of_text(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_dataset *ds = NULL;
    static const uint16_t ids[] = {'a', 'b', 256, 256, 'c', 256, 'd'};
    const char *path = test_write("t/web/t.npy", ids, sizeof ids);
    EXPECT_OK(open_one(path, NULL, &ds, &err));
    assert_string_equal(show(ds), ":ab/0;:c/0;:d/0;");
    assert_int_equal(emo_dataset_bytes(ds), 4);
    emo_dataset_release(ds);
    EXPECT_OK(open_one(test_path("t"), NULL, &ds, &err));
    assert_string_equal(show(ds), "web:ab/0;web:c/0;web:d/0;");
    emo_dataset_release(ds);
    emo_dataset_options opt = EMO_DATASET_OPTIONS_INIT;
    opt.token_type = EMO_TOKENS_U32;
    EXPECT_STATUS(open_one(path, &opt, &ds, &err), EMO_E_FORMAT, "whole number");
    opt.token_type = EMO_TOKENS_U16;
    opt.eos = 'b';
    EXPECT_OK(open_one(path, &opt, &ds, &err));
    assert_int_equal(emo_dataset_count(ds), 2);
    emo_dataset_release(ds);
    opt.eos = 257;
    EXPECT_STATUS(open_one(path, &opt, &ds, &err), EMO_E_RANGE, "eos is 257");
}

static void mix_files_name_files_and_domains(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_dataset *ds = NULL;
    static const uint16_t a[] = {'a', 'b', 256, 'c'};
    static const uint16_t b[] = {'d', 256, 256, 'e'};
    static const char list[] = "# token files\n\nweb,{TOKENIZER}/a.npy\r\n  law,{TOKENIZER}/b.npy  \nweb,j.jsonl";
    static const char json[] = "{\"text\": \"f\"}\n{\"text\": \"g\", \"domain\": \"own\"}\n";
    (void)test_write("m/tok/a.npy", a, sizeof a);
    (void)test_write("m/tok/b.npy", b, sizeof b);
    (void)test_write("m/j.jsonl", json, strlen(json));
    const char *txt = test_write("m/list.txt", list, strlen(list));
    emo_dataset_options opt = EMO_DATASET_OPTIONS_INIT;
    opt.mix_tokenizer = "tok";
    EXPECT_OK(open_one(txt, &opt, &ds, &err));
    assert_string_equal(show(ds), "web:ab/0;web:c/0;law:d/0;law:e/0;web:f/0;own:g/0;");
    emo_dataset_release(ds);
    opt.domain = "law";
    EXPECT_OK(open_one(txt, &opt, &ds, &err));
    assert_string_equal(show(ds), "law:d/0;law:e/0;");
    emo_dataset_release(ds);
    opt = (emo_dataset_options)EMO_DATASET_OPTIONS_INIT;
    EXPECT_STATUS(open_one(txt, &opt, &ds, &err), EMO_E_NOT_FOUND, "allenai/dolma2-tokenizer/a.npy");
    opt.mix_root = test_path("m");
    EXPECT_OK(open_one(test_write("far/x.mix", "x,tok/a.npy\n", 12), &opt, &ds, &err));
    assert_string_equal(show(ds), "x:ab/0;x:c/0;");
    emo_dataset_release(ds);
    opt.mix_root = NULL;
    char whole[1200];
    int n = snprintf(whole, sizeof whole, "x,%s\n", test_path("m/tok/b.npy"));
    EXPECT_OK(open_one(test_write("far/y.csv", whole, (size_t)n), &opt, &ds, &err));
    assert_string_equal(show(ds), "x:d/0;x:e/0;");
    emo_dataset_release(ds);

    static const char *const bad[][2] = {{"no comma\n", "bad.mix:1"}, {"#\na,b,c\n", "bad.mix:2"},
                                         {"a,\n", "bad.mix:1"},       {",b\n", "bad.mix:1"},
                                         {"# nothing\n", "no files"}, {"", "no files"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        EXPECT_STATUS(open_one(test_write("bad.mix", bad[i][0], strlen(bad[i][0])), NULL, &ds, &err), EMO_E_FORMAT,
                      bad[i][1]);
    EXPECT_STATUS(open_one(test_write("gone.mix", "a,gone.npy\n", 11), NULL, &ds, &err), EMO_E_NOT_FOUND, "gone.npy");
    /* prose with a comma, or a mix of which the first line does not end, is text */
    EXPECT_OK(open_one(test_write("prose.txt", "well, see a.npy\n", 16), NULL, &ds, &err));
    assert_string_equal(show(ds), ":well, see a.npy\n/0;");
    emo_dataset_release(ds);
}

/* Token files without a header: two bytes a token, or four where the vocabulary needs them. */
static void raw_tokens_are_as_wide_as_the_vocabulary_needs(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_tokenizer *wide = NULL;
    emo_dataset *ds = NULL;
    size_t size = 0;
    EXPECT_OK(emo_tokenizer_to_json(tok, NULL, 0, &size, &err));
    char *text = calloc(size + 16, 1);
    assert_non_null(text);
    EXPECT_OK(emo_tokenizer_to_json(tok, text, size, &size, &err));
    char *id = strstr(text, "256"); /* the added token: no other number comes before it */
    assert_non_null(id);
    memmove(id + 5, id + 3, strlen(id + 3) + 1);
    memcpy(id, "65700", 5);
    EXPECT_OK(emo_tokenizer_from_json(rt, text, strlen(text), &wide, &err));
    free(text);
    assert_true(emo_tokenizer_vocab_size(wide) > 65536);
    static const uint32_t ids[] = {'a', 'b', 65700, 'c'};
    const char *path = test_write("wide.npy", ids, sizeof ids);
    emo_dataset_options opt = EMO_DATASET_OPTIONS_INIT;
    EXPECT_OK(emo_dataset_open(rt, &path, 1, wide, &opt, &ds, &err));
    assert_string_equal(show(ds), ":ab/0;:c/0;");
    emo_dataset_release(ds);
    emo_tokenizer_release(wide);
}

static void threads_do_not_change_the_tokens(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    char *text = malloc(200000);
    assert_non_null(text);
    size_t used = 0;
    for (int i = 0; i < 2000; i++)
        used += (size_t)snprintf(text + used, 200000 - used, "{\"text\": \"%d %0*d\", \"domain\": \"d%d\"}\n", i,
                                 i % 40 + 1, i, i % 3);
    const char *path = test_write("many.jsonl", text, used);
    free(text);
    emo_runtime *four = test_runtime(4, EMO_ISA_SCALAR);
    emo_dataset *a = NULL;
    emo_dataset *b = NULL;
    EXPECT_OK(open_one(path, NULL, &a, &err));
    EXPECT_OK(emo_dataset_open(four, &path, 1, tok, NULL, &b, &err));
    assert_int_equal(a->count, 2000);
    assert_int_equal(b->count, 2000);
    assert_int_equal(a->store->count, b->store->count);
    assert_memory_equal(a->store->tokens, b->store->tokens, a->store->count * 4);
    assert_memory_equal(a->docs, b->docs, a->count * sizeof a->docs[0]);
    emo_dataset_release(a);
    emo_dataset_release(b);
    emo_runtime_release(four);
}

static int64_t cache_files(emo__names *names) {
    emo_error err = EMO_ERROR_INIT;
    EXPECT_OK(emo__list_files(&rt->mem, test_path("cache"), true, names, &err));
    return (int64_t)names->count;
}

static int32_t cancel(void *ctx, const emo_progress_info *info) {
    (void)ctx;
    assert_string_equal(info->phase, "tokenize");
    return 1;
}

static void the_cache_is_used_and_rebuilt(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_dataset *ds = NULL;
    emo__names names;
    emo_dataset_options opt = EMO_DATASET_OPTIONS_INIT;
    char folder[1024];
    (void)snprintf(folder, sizeof folder, "%s", test_path("cache"));
    opt.cache_dir = folder;
    static const char first[] = "{\"text\": \"one\", \"domain\": \"x\"}\n{\"prompt\": \"p\", \"completion\": \"c\"}\n";
    const char *path = test_write("c.jsonl", first, sizeof first - 1);
    opt.progress.report = cancel;
    EXPECT_STATUS(open_one(path, &opt, &ds, &err), EMO_E_CANCELLED, "cancelled");
    assert_int_equal(cache_files(&names), 0); /* nothing half-made stays */
    emo__names_free(&names);
    opt.progress.report = NULL;
    for (int round = 0; round < 2; round++) {
        EXPECT_OK(open_one(path, &opt, &ds, &err));
        assert_string_equal(show(ds), "x:one/0;:pc/1;");
        assert_int_equal(ds->docs[0].prompt_bytes, 0);
        assert_int_equal(ds->docs[1].prompt_bytes, 1);
        assert_non_null(ds->store->source);
        assert_int_equal(emo_dataset_vocab_size(ds), 257);
        emo_dataset_release(ds);
        assert_int_equal(cache_files(&names), 1);
        if (round == 0)
            emo__names_free(&names);
    }
    /* Every single damaged byte is either harmless padding or leads to a rebuild with the same result. */
    char shard[2048];
    (void)snprintf(shard, sizeof shard, "%s/%s", folder, names.items[0]);
    emo__names_free(&names);
    size_t size = 0;
    unsigned char *sound = test_read(shard, &size);
    for (size_t at = 64 + 5 * 4; at <= size; at++) { /* tokens themselves have no checksum, only a range */
        FILE *file = fopen(shard, "wb");
        assert_non_null(file);
        unsigned char old = sound[at % size];
        sound[at % size] = (unsigned char)(old ^ 0x55);
        assert_int_equal(fwrite(sound, 1, at == size ? size / 2 : size, file), at == size ? size / 2 : size);
        sound[at % size] = old;
        assert_int_equal(fclose(file), 0);
        EXPECT_OK(open_one(path, &opt, &ds, &err));
        assert_string_equal(show(ds), "x:one/0;:pc/1;");
        emo_dataset_release(ds);
    }
    free(sound);
    (void)test_write("c.jsonl", "{\"text\": \"changed\"}\n", 20);
    EXPECT_OK(open_one(test_path("c.jsonl"), &opt, &ds, &err));
    assert_string_equal(show(ds), ":changed/0;");
    emo_dataset_release(ds);
}

static void filters_draw_by_seed(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    int32_t tokens[60];
    size_t lengths[20];
    const char *domains[20];
    for (int i = 0; i < 60; i++)
        tokens[i] = i / 3 + 'A';
    for (int i = 0; i < 20; i++) {
        lengths[i] = 3;
        domains[i] = i % 2 == 0 ? "even" : "odd";
    }
    emo_dataset *ds = NULL;
    emo_dataset *a = NULL;
    emo_dataset *b = NULL;
    EXPECT_OK(emo_dataset_from_tokens(rt, tokens, lengths, domains, 20, 0, &ds, &err));
    assert_int_equal(emo_dataset_vocab_size(ds), 'A' + 20);
    EXPECT_OK(emo_dataset_filter(ds, "odd", 0, 0, &a, &err));
    assert_int_equal(emo_dataset_count(a), 10);
    assert_int_equal(emo_dataset_tokens(a), 30);
    assert_int_equal(emo_dataset_domains(a), 2);
    emo_dataset_release(ds); /* the part keeps what it needs */
    EXPECT_OK(emo_dataset_filter(a, NULL, 4, 11, &b, &err));
    char drawn[256];
    (void)snprintf(drawn, sizeof drawn, "%s", show(b));
    assert_int_equal(strlen(drawn), 4 * strlen("odd:AAA/0;"));
    emo_dataset_release(b);
    EXPECT_OK(emo_dataset_filter(a, NULL, 4, 11, &b, &err));
    assert_string_equal(show(b), drawn);
    emo_dataset_release(b);
    EXPECT_OK(emo_dataset_filter(a, NULL, 4, 12, &b, &err));
    assert_string_not_equal(show(b), drawn); /* 1 in 5040 to be equal; the seeds are fixed */
    emo_dataset_release(b);
    EXPECT_STATUS(emo_dataset_filter(a, "even", 0, 0, &b, &err), EMO_E_NOT_FOUND, "even");
    EXPECT_STATUS(emo_dataset_filter(a, NULL, 11, 0, &b, &err), EMO_E_RANGE, "10 documents");
    emo_dataset_release(a);
    tokens[4] = -1;
    EXPECT_STATUS(emo_dataset_from_tokens(rt, tokens, lengths, NULL, 20, 0, &ds, &err), EMO_E_RANGE, "tokens[4]");
}

static void texts(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_dataset *ds = NULL;
    const char *all[] = {"ab", "c", "\xff"};
    const char *domains[] = {"x", "y", "z"};
    EXPECT_OK(emo_dataset_from_text(rt, tok, all, domains, 2, &ds, &err));
    assert_string_equal(show(ds), "x:ab/0;y:c/0;");
    emo_document doc;
    EXPECT_STATUS(emo_dataset_document(ds, 2, &doc, &err), EMO_E_RANGE, "there are 2");
    emo_dataset_release(ds);
    EXPECT_STATUS(emo_dataset_from_text(rt, tok, all, domains, 3, &ds, &err), EMO_E_FORMAT, "texts[2]");
}

static void utf8(void **state) {
    (void)state;
    static const char *const good[] = {"", "a", "\xc2\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {"\x80",
                                      "\xc1\xbf",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xe2\x82",
                                      "\xc2",
                                      "\xe2\x82\x41"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(emo__utf8_valid(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(emo__utf8_valid(bad[i], strlen(bad[i])));
}

static void choices(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_choices *c = NULL;
    static const char good[] =
        "{\"id\": \"i1\", \"domain\": \"law\", \"kind\": \"k\", \"context\": \"Q\", \"choices\": [\"a\", \"b\", \"c\"],"
        " \"answer\": 2, \"more\": 1}\n{\"context\": \"\", \"choices\": [\"x\", \"y\"], \"answer\": 0}\n";
    EXPECT_OK(emo_choices_open(rt, test_append_gzip("mc.jsonl.gz", good, sizeof good - 1), &c, &err));
    assert_int_equal(emo_choices_count(c), 2);
    emo_choice_item item;
    EXPECT_OK(emo_choices_item(c, 0, &item, &err));
    assert_string_equal(item.choices[2], "c");
    assert_string_equal(item.domain, "law");
    assert_int_equal(item.count, 3);
    assert_int_equal(item.answer, 2);
    EXPECT_OK(emo_choices_item(c, 1, &item, &err));
    assert_string_equal(item.id, "");
    EXPECT_STATUS(emo_choices_item(c, 2, &item, &err), EMO_E_RANGE, "there are 2");
    emo_choices_release(c);
    static const char *const bad[] = {
        "{\"context\": \"Q\", \"choices\": [\"a\", \"b\"], \"answer\": 2}",
        "{\"context\": \"Q\", \"choices\": [\"a\", \"b\"]}",
        "{\"context\": \"Q\", \"choices\": [\"a\"], \"answer\": 0}",
        "{\"context\": \"Q\", \"choices\": [\"a\", \"\"], \"answer\": 0}",
        "{\"context\": \"Q\", \"choices\": [\"a\", 1], \"answer\": 0}",
        "{\"choices\": [\"a\", \"b\"], \"answer\": 0}",
        "7",
        "{",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        EXPECT_STATUS(emo_choices_open(rt, test_write("bad.jsonl", bad[i], strlen(bad[i])), &c, &err), EMO_E_FORMAT,
                      "bad.jsonl:1");
}

static int setup(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    (void)test_folder();
    rt = test_runtime(1, EMO_ISA_SCALAR);
    return emo_tokenizer_create_bytes(rt, &tok, &err) == EMO_OK ? 0 : -1;
}
static int teardown(void **state) {
    (void)state;
    emo_tokenizer_release(tok);
    emo_runtime_release(rt);
    test_folder_remove();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_lines),
        cmocka_unit_test(broken_lines_are_named_or_skipped),
        cmocka_unit_test(texts_go_straight_to_the_trainer),
        cmocka_unit_test(folders_give_domains),
        cmocka_unit_test(token_files_are_cut_at_the_end_of_text),
        cmocka_unit_test(mix_files_name_files_and_domains),
        cmocka_unit_test(raw_tokens_are_as_wide_as_the_vocabulary_needs),
        cmocka_unit_test(threads_do_not_change_the_tokens),
        cmocka_unit_test(the_cache_is_used_and_rebuilt),
        cmocka_unit_test(filters_draw_by_seed),
        cmocka_unit_test(texts),
        cmocka_unit_test(utf8),
        cmocka_unit_test(choices),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
