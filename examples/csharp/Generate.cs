// SPDX-License-Identifier: Apache-2.0
// libemo from C#, as an engine's script would call it: a model is loaded, and each frame gives it four milliseconds.
//     mcs Generate.cs && LD_LIBRARY_PATH=... mono Generate.exe MODEL_FOLDER "Once upon a time"
using System;
using System.Runtime.InteropServices;
using System.Text;

// The C API: structs as in the headers, handles as SafeHandle, so that nothing is released twice or forgotten.
static class Native {
    const string Lib = "libemo.so.0"; // Unity and Godot: the file among the plug-ins, "emo"

    [StructLayout(LayoutKind.Sequential)]
    public struct Error {
        public int code, domain;
        public long number;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 496)] public byte[] message;
    }
    [StructLayout(LayoutKind.Sequential)]
    public struct Budget { public ulong ns; public int steps, tokens; }
    [StructLayout(LayoutKind.Sequential)]
    public struct SessionOptions {
        public uint struct_size;
        public int sequences, capacity, max_tokens;
        public IntPtr mask, pool;
        public float temperature;
        public int top_k;
        public float top_p, min_p, repetition_penalty;
        public int repetition_window;
        public ulong seed;
        public int ignore_eos, prepend_eos;
        public IntPtr stop;
        public UIntPtr n_stop;
        public IntPtr progress_ctx;
        public Progress progress; // whoever sets it keeps the delegate alive as long as the session
    }
    [UnmanagedFunctionPointer(CallingConvention.Cdecl)] public delegate int Progress(IntPtr ctx, IntPtr info);

    public abstract class Handle : SafeHandle {
        protected Handle() : base(IntPtr.Zero, true) { }
        public override bool IsInvalid { get { return handle == IntPtr.Zero; } }
    }
    public class Runtime : Handle { protected override bool ReleaseHandle() { emo_runtime_release(handle); return true; } }
    public class Model : Handle { protected override bool ReleaseHandle() { emo_model_release(handle); return true; } }
    public class Session : Handle { protected override bool ReleaseHandle() { emo_session_release(handle); return true; } }

    [DllImport(Lib)] public static extern IntPtr emo_version_string();
    [DllImport(Lib)] public static extern int emo_runtime_create(IntPtr options, out Runtime rt, ref Error err);
    [DllImport(Lib)] static extern void emo_runtime_release(IntPtr rt);
    [DllImport(Lib)] public static extern int emo_model_load_path(Runtime rt, byte[] folder, IntPtr options, out Model model, ref Error err);
    [DllImport(Lib)] static extern void emo_model_release(IntPtr model);
    [DllImport(Lib)] static extern UIntPtr emo_struct_init(byte[] name, ref SessionOptions options, UIntPtr size);
    [DllImport(Lib)] public static extern int emo_session_create(Model model, ref SessionOptions options, out Session session, ref Error err);
    [DllImport(Lib)] static extern void emo_session_release(IntPtr session);
    [DllImport(Lib)] public static extern int emo_session_append_text(Session session, byte[] text, ref Error err);
    [DllImport(Lib)] public static extern int emo_session_advance(Session session, ref Budget budget, out int state, ref Error err);
    [DllImport(Lib)] public static extern IntPtr emo_session_text(Session session);

    // The defaults, in a struct as large as it is here.
    public static SessionOptions DefaultSessionOptions() {
        var options = new SessionOptions();
        var size = (UIntPtr)(uint)Marshal.SizeOf(typeof(SessionOptions));
        if (emo_struct_init(Utf8("emo_session_options"), ref options, size).ToUInt64() < size.ToUInt64())
            throw new EmoException("EMO_E_MISMATCH", "this library is older than the program");
        return options;
    }
    public static byte[] Utf8(string text) { return Encoding.UTF8.GetBytes(text + "\0"); }
    public static string Text(IntPtr utf8) {
        int n = 0;
        while (Marshal.ReadByte(utf8, n) != 0)
            n++;
        var bytes = new byte[n];
        Marshal.Copy(utf8, bytes, 0, n);
        return Encoding.UTF8.GetString(bytes);
    }
    public static void Check(int status, ref Error err) {
        if (status != 0)
            throw new EmoException(status.ToString(), Encoding.UTF8.GetString(err.message).TrimEnd('\0'));
    }
}

class EmoException : Exception {
    public EmoException(string status, string message) : base(status + ": " + message) { }
}

// What a scene would hold: text comes in pieces, never more work than the frame allows.
sealed class Writer : IDisposable {
    readonly Native.Runtime runtime;
    readonly Native.Model model;
    readonly Native.Session session;
    Native.Error err = new Native.Error { message = new byte[496] };
    public bool Done { get; private set; }

    public Writer(string folder, string prompt, int tokens) {
        Native.Check(Native.emo_runtime_create(IntPtr.Zero, out runtime, ref err), ref err);
        Native.Check(Native.emo_model_load_path(runtime, Native.Utf8(folder), IntPtr.Zero, out model, ref err), ref err);
        var options = Native.DefaultSessionOptions();
        options.max_tokens = tokens;
        Native.Check(Native.emo_session_create(model, ref options, out session, ref err), ref err);
        Native.Check(Native.emo_session_append_text(session, Native.Utf8(prompt), ref err), ref err);
    }
    public string Update() { // once a frame
        var budget = new Native.Budget { ns = 4000000 };
        int state;
        Native.Check(Native.emo_session_advance(session, ref budget, out state, ref err), ref err);
        Done = state == 2; // EMO_STATE_DONE
        return Native.Text(Native.emo_session_text(session));
    }
    public void Dispose() { // in any order: children keep their parents alive
        foreach (SafeHandle handle in new SafeHandle[] { runtime, model, session }) {
            if (handle != null)
                handle.Dispose();
        }
    }
}

static class Program {
    static int Main(string[] args) {
        if (args.Length != 2) {
            Console.Error.WriteLine("usage: Generate MODEL_FOLDER PROMPT");
            return 2;
        }
        try {
            using (var writer = new Writer(args[0], args[1], 60)) {
                Console.Write(args[1]);
                while (!writer.Done)
                    Console.Write(writer.Update());
                Console.WriteLine();
            }
        } catch (EmoException e) {
            Console.Error.WriteLine(e.Message);
            return 1;
        }
        return 0;
    }
}
